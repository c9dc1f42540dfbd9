"""Errors of front ends, with what clients of BuildKit's protocol are told of them beside the message."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ketch.build.llb import ops_pb2 as pb
from ketch.errors import KetchError, Unimplemented

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.dockerfile.errors import Span


class SourcePlace(NamedTuple):
    """Lines of a file: its name and content, and ranges in it."""

    info: pb.SourceInfo
    ranges: Sequence[pb.Range]


class PlacedError(KetchError):
    """An error with the lines that it comes from, and its operation, if any; ``kind`` is that of the cause."""

    def __init__(self, cause: KetchError, places: Sequence[SourcePlace], op: pb.Op | None = None) -> None:
        super().__init__(cause.message, hint=cause.hint)
        self.kind, self.cause, self.places, self.op = cause.kind, cause, places, op


class UnsupportedCapability(Unimplemented):
    """A capability that a client requires of the front end, which has it not."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unsupported frontend capability {name}")
        self.name = name


class UnsupportedSubrequest(Unimplemented):
    """A call that the front end does not answer."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unsupported request {name}")
        self.name = name


def lines(span: Span) -> list[pb.Range]:
    """The lines of a span, each a range, as BuildKit's front end names them."""
    numbers = [pb.Position(line=number) for number in range(span.start, span.end + 1)]
    return [pb.Range(start=number, end=number) for number in numbers]
