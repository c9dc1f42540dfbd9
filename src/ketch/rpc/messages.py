"""Messages of calls as bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from google.protobuf.message import DecodeError

from ketch.rpc.status import Code, RpcError

if TYPE_CHECKING:
    from ketch.rpc.method import Message

M = TypeVar("M", bound="Message | bytes")


def read(kind: type[M], data: bytes) -> M:
    """The message that ``data`` is (RpcError when it is none)."""
    if issubclass(kind, bytes):
        return kind(data)
    try:
        return cast("type[Message]", kind).FromString(data)  # type: ignore[return-value]
    except DecodeError as e:
        raise RpcError(Code.INTERNAL, f"what was received is no {kind.__name__}: {e}") from e


def write(message: Message | bytes) -> bytes:
    """The bytes of a message."""
    return message if isinstance(message, bytes) else message.SerializeToString()
