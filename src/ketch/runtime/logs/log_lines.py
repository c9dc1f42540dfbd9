"""Output cut into log messages as Docker cuts it, and the times that such messages carry.

A message is a line.  A line of more than 16 KiB is several: pieces of 16 KiB that say that they are not
the end, and what remains (moby, daemon/logger/copier.go).  What has no newline yet waits for it.
"""

from __future__ import annotations

import time

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


class Clock:
    """Writes times; remembers the last second's text, which most calls need again."""

    def __init__(self) -> None:
        self._second, self._text = -1, ""

    def seconds(self, second: int) -> str:
        """``2024-01-02T03:04:05``, UTC."""
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return self._text

    def nano(self, ns: int) -> str:
        """Go's RFC3339Nano: ``2024-01-02T03:04:05.1234Z``, without zeros at the end."""
        second, rest = divmod(ns, 1_000_000_000)
        fraction = f".{rest:09}".rstrip("0") if rest else ""
        return f"{self.seconds(second)}{fraction}Z"
