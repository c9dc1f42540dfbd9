"""The gzip compressor of layers, whose output depends on the input alone.

A layer's digest names it, so the same tar must give the same blob on every version of Python and however it was cut
into writes.  Python's own gzip file promises neither: since 3.12 it gathers writes before it compresses, and ISA-L's
output depends on the pieces that it is given.  Here header and trailer are written by hand (RFC 1952, section 2.3),
and the compressor gets pieces of one size.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Magic, deflate, no flags, no time, no extra flags, "unknown" system.
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LEVEL = 1
_RAW_DEFLATE = -15
_PIECE = 1 << 17


class GzipWriter:
    """A writer that passes its compressed input to a function; ``finish`` completes the stream.

    It is no file, whose collection would finish it: one that is dropped on the way writes nothing more.
    """

    def __init__(self, write: Callable[[bytes], object], level: int = -1) -> None:
        """``level``: 0 to 9 as zlib has them; -1 is ISA-L's first, which is several times faster."""
        from isal import isal_zlib

        self._write = write
        self._deflate: Any
        if level < 0:
            self._deflate = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _RAW_DEFLATE)
        else:
            self._deflate = zlib.compressobj(level, zlib.DEFLATED, _RAW_DEFLATE)
        self._crc32 = isal_zlib.crc32
        self._crc = 0
        self._size = 0
        self._piece = bytearray()  # always shorter than _PIECE between writes
        write(_HEADER)

    def write(self, data: Any) -> int:
        """Compress any buffer of bytes; returns its length."""
        with memoryview(data).cast("B") as view:
            length = len(view)
            begin = 0
            if self._piece:
                begin = min(_PIECE - len(self._piece), length)
                self._piece += view[:begin]
                if len(self._piece) < _PIECE:
                    return length
                self._compress(self._piece)
                self._piece = bytearray()
            while begin + _PIECE <= length:
                self._compress(view[begin : begin + _PIECE])
                begin += _PIECE
            self._piece += view[begin:]
        return length

    def finish(self) -> None:
        """Flush, and write the trailer."""
        if self._piece:
            self._compress(self._piece)
        self._write(self._deflate.flush() + struct.pack("<LL", self._crc, self._size & 0xFFFFFFFF))

    def _compress(self, piece: Any) -> None:
        self._crc = self._crc32(piece, self._crc)
        self._size += len(piece)
        if packed := self._deflate.compress(piece):
            self._write(packed)
