"""Methods of services, derived from the services' descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import msgspec
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    from typing import Self

    from google.protobuf.descriptor import ServiceDescriptor


class Message(Protocol):
    """A message as calls need it: one of protobuf's, or a class that reads its bytes by itself."""

    def SerializeToString(self) -> bytes:
        """Its bytes."""

    @classmethod
    def FromString(cls, data: bytes, /) -> Self:
        """The message of such bytes."""


Q = TypeVar("Q", bound="Message | bytes")
A = TypeVar("A", bound="Message | bytes")


class Method(msgspec.Struct, Generic[Q, A], frozen=True):
    """A method that can be called: ``/package.Service/Method`` and the types of its messages."""

    path: str
    request: type[Q]
    answer: type[A]


class Service:
    """A table of a service's methods: subclasses annotate each by its name, the rest is in the descriptor.

    class Control(Service, of=control_pb2.DESCRIPTOR.services_by_name["Control"]):
        Info: ClassVar[Method[InfoRequest, InfoResponse]]
    """

    methods: tuple[Method[Message, Message], ...] = ()

    def __init_subclass__(cls, *, of: ServiceDescriptor) -> None:
        super().__init_subclass__()
        made: list[Method[Message, Message]] = []
        for method in of.methods:
            request, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
            made.append(Method(f"/{of.full_name}/{method.name}", cast("Any", request), cast("Any", answer)))
            setattr(cls, method.name, made[-1])
        cls.methods = tuple(made)
