"""Docker's JSON progress: one dict a line, ``id`` a layer's, ``progressDetail`` for machines and a bar for people.

Clients draw the bar themselves from ``progressDetail``; ``progress`` is for those that only print.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

from ketch.notation.sizes import human_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypedDict

    class ProgressDetail(TypedDict, total=False):
        """Bytes that are done, of how many; empty for a state without figures."""

        current: int
        total: int

    class ProgressItem(TypedDict, total=False):
        """One line: a sentence (``stream``), or a ``status``; ``aux`` is what programs read of the result."""

        id: str
        status: str
        stream: str
        progress: str
        progressDetail: ProgressDetail
        aux: Mapping[str, object]

    Report = Callable[[ProgressItem], None]

_EVERY_S = 0.1
_WIDTH = 50


def short(digest: str) -> str:
    """The short name of a layer in progress."""
    return digest.partition(":")[2][:12]


def status(ident: str, text: str) -> ProgressItem:
    """A status without figures."""
    return {"status": text, "progressDetail": {}, "id": ident}


def moving(ident: str, text: str, current: int, total: int) -> ProgressItem:
    """A status with bytes done and bytes in all (0: not known)."""
    item: ProgressItem = {
        "status": text,
        "progressDetail": {"current": current},
        "progress": _size(current),
        "id": ident,
    }
    if total:
        done = min(_WIDTH, _WIDTH * current // total)
        item["progressDetail"]["total"] = total
        item["progress"] = f"[{'=' * done + '>':<{_WIDTH}}]  {_size(current)}/{_size(total)}"
    return item


def _size(count: int) -> str:
    return human_size(count, 4)


class Meter:
    """A progress meter that reports at a limited rate."""

    def __init__(self, report: Report, ident: str, text: str, total: int) -> None:
        self._report, self._ident, self._text, self._total = report, ident, text, total
        self._next = 0.0

    def at(self, current: int) -> None:
        """Record the bytes done."""
        now = time.monotonic()
        if now >= self._next or current == self._total:
            self._next = now + _EVERY_S
            self._report(moving(self._ident, self._text, current, self._total))


class Metered(io.RawIOBase):
    """A file whose reading a meter shows."""

    def __init__(self, source: io.RawIOBase, meter: Meter) -> None:
        self._source, self._meter = source, meter
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._source.readinto(buffer) or 0
        if count:
            self._done += count
            self._meter.at(self._done)
        return count
