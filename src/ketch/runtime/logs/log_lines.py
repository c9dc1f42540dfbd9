"""Splitting of output into log messages, as Docker does, and the messages' times.

A message is a line.  A line of more than 16 KiB is several: pieces of 16 KiB that say that they are not
the end, and what remains (moby, daemon/logger/copier.go).  What has no newline yet waits for it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 16 << 10


class Splitter:
    """The splitter of one stream; it holds back at most ``LIMIT`` bytes."""

    def __init__(self) -> None:
        self.held = b""

    def take(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """(block, partial): whole lines with their newlines, or one piece of a line that is longer than ``LIMIT``."""
        if self.held:
            data = self.held + data
        position = 0
        while True:
            end = data.rfind(b"\n", position, position + LIMIT) + 1
            if end:
                yield data[position:end], False
                position = end
            elif len(data) - position >= LIMIT:
                yield data[position : position + LIMIT], True
                position += LIMIT
            else:
                break
        self.held = data[position:]

    def rest(self) -> bytes:
        """The rest of an unfinished line, at the end of the output."""
        held, self.held = self.held, b""
        return held
