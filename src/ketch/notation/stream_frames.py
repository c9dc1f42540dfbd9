"""The header before each piece of output on a connection without a terminal (Engine API, ContainerAttach).

8 bytes: the stream's number, three zeros, and the length of what follows.  Clients take what follows for one message:
the log is sent with a header before each line.  Ketch's own requests have another stream, `ENDING`: one last frame with
a JSON object that says how the process ended.
"""

from __future__ import annotations

from operator import add
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

STDIN, STDOUT, STDERR, ENDING = 0, 1, 2, 3
HEADER = Struct(">B3xI")
_KEPT = 256  # the headers of shorter pieces are made once


class _Headers(dict[int, bytes]):
    """The headers of one stream by the length of what follows."""

    def __init__(self, stream: int) -> None:
        super().__init__()
        self._stream = stream

    def __missing__(self, length: int) -> bytes:
        header = HEADER.pack(self._stream, length)
        if length < _KEPT:
            self[length] = header
        return header


_HEADERS = tuple(_Headers(stream) for stream in (STDIN, STDOUT, STDERR))


def frame(stream: int, data: bytes) -> bytes:
    """``data`` with its header."""
    return HEADER.pack(stream, len(data)) + data


def frames(stream: int, pieces: Sequence[bytes]) -> bytes:
    """Each piece with its header; all loops run in C."""
    return b"".join(map(add, map(_HEADERS[stream].__getitem__, map(len, pieces)), pieces))


def line_frames(stream: int, lines: bytes) -> bytes:
    """Whole lines, each with its header."""
    return frames(stream, [line + b"\n" for line in lines[:-1].split(b"\n")])
