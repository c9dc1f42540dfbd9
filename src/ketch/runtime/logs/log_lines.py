"""Output cut into log messages as Docker cuts it, and the times that such messages carry.

A message is a line.  A line of more than 16 KiB is several: pieces of 16 KiB that say that they are not
the end, and what remains (moby, daemon/logger/copier.go).  What has no newline yet waits for it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 16 << 10


class Splitter:
    """One stream's output on its way to be messages; at most ``LIMIT`` bytes are held back."""

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
        """What waits for its newline, which does not come any more."""
        held, self.held = self.held, b""
        return held
