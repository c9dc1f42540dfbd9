"""xz streams with a bound on memory, which `lzma.LZMAFile` does not have: a stream of some bytes may ask for 4 GiB."""

from __future__ import annotations

import io
import lzma
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ketch.storage.archive.tar import Source

MOST_MEMORY = 160 << 20  # `xz -9` wants 65 MiB; zstd's decoder has a bound of 128 MiB for the same purpose
_CHUNK = 1 << 16


class Xz(io.RawIOBase):
    """A reader of one or several concatenated streams (xz(1) with several threads makes such files).

    lzma.LZMAError for what is broken or wants more memory, EOFError for what is cut short.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._decoder = self._new()
        self._rest = b""

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._decoder.eof and not self._begin_next():
                return 0
            data, self._rest = self._rest, b""
            if not data and self._decoder.needs_input and not (data := self._source.read(_CHUNK)):
                raise EOFError("it ends in the middle of a stream")
            if out := self._decoder.decompress(data, len(buffer)):
                buffer[: len(out)] = out
                return len(out)

    def _begin_next(self) -> bool:
        """Begin the next stream, if there is one, after padding of zeros (.xz file format 1.2, §2.2)."""
        data = self._decoder.unused_data.lstrip(b"\0")
        while not data:
            read = self._source.read(_CHUNK)
            if not read:
                return False
            data = read.lstrip(b"\0")
        self._decoder, self._rest = self._new(), data
        return True
