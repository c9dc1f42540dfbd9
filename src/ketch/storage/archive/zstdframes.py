"""Detection of truncated zstd streams (RFC 8878 §3), which the decoder does not report."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ketch.storage.archive.tar import Source

_SKIPPABLE = 0x184D2A50
_DICTIONARY_ID = (0, 1, 2, 4)
_CONTENT_SIZE = (0, 2, 4, 8)
_CHECKSUM = 4


class WholeFrames(io.RawIOBase):
    """A stream that follows its zstd frames (EOFError: it ends within one)."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._skip = 0  # bytes of no interest that follow
        self._head = b""  # of what is wanted next, as far as it is here
        self._state, self._wanted = "magic", 4
        self._checksum = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        if not data and (self._state != "magic" or self._skip or self._head):
            raise EOFError("it ends in the middle of a frame")
        self._follow(data)
        buffer[: len(data)] = data
        return len(data)

    def _follow(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            part = data[at : at + self._wanted - len(self._head)]
            self._head += part
            at += len(part)
            if len(self._head) == self._wanted:
                head, self._head = self._head, b""
                self._step(int.from_bytes(head, "little"))

    def _step(self, value: int) -> None:
        """Step to the next field; errors are left to the decoder."""
        if self._state == "magic":
            self._state, self._wanted = ("size", 4) if value & ~0xF == _SKIPPABLE else ("descriptor", 1)
        elif self._state == "size":
            self._skip = value
            self._state, self._wanted = "magic", 4
        elif self._state == "descriptor":
            single = value >> 5 & 1
            self._checksum = _CHECKSUM if value >> 2 & 1 else 0
            self._skip = (1 - single) + _DICTIONARY_ID[value & 3] + max(_CONTENT_SIZE[value >> 6], single)
            self._state, self._wanted = "block", 3
        else:
            is_rle = value >> 1 & 3 == 1
            self._skip = 1 if is_rle else value >> 3
            if value & 1:
                self._skip += self._checksum
                self._state, self._wanted = "magic", 4
