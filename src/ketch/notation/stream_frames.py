"""The header before each piece of output on a connection without a terminal (Engine API, ContainerAttach).

8 bytes: the stream's number, three zeros, and the length of what follows.
"""

from __future__ import annotations

from struct import Struct

STDIN, STDOUT, STDERR = 0, 1, 2
HEADER = Struct(">B3xI")


def frame(stream: int, data: bytes) -> bytes:
    """``data`` with its header."""
    return HEADER.pack(stream, len(data)) + data
