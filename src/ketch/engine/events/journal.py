"""Journal of events: one JSON object a line, so that they can be asked for after a restart of the daemon.

    events.jsonl, events.jsonl.1      the newer file is appended to; at MAX_BYTES it takes the older one's place

An event is written before anybody hears of it, with one write(2) and no fsync: it survives the death of the daemon,
the last ones may not survive a power cut.
"""

from __future__ import annotations

import contextlib
import logging
import os
from errno import EDQUOT, ENOSPC
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.engine.model.event import Event

log = logging.getLogger(__name__)
MAX_BYTES = 4 << 20
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class EventJournal:
    """The two files; written from the event loop's thread, read from any."""

    def __init__(self, directory: str, max_bytes: int = MAX_BYTES) -> None:
        self._path = os.path.join(directory, "events.jsonl")
        self._max_bytes = max_bytes
        self._failed = False
        self._open()

    def _open(self) -> None:
        try:
            self._fd = os.open(self._path, _FLAGS, 0o640)
        except OSError as e:
            if e.errno not in (ENOSPC, EDQUOT):
                raise
            log.warning("keep events in `%s`: %s", self._path, e.strerror)
            self._fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            self._missing = True
        else:
            self._missing = False
        self._size = os.fstat(self._fd).st_size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            with contextlib.suppress(OSError):  # it is full still: then with the next event
                self._size += os.write(self._fd, b"\n")  # what a full disk cut short stays one bad line

    def append(self, event: Event) -> None:
        """Write one event; a full disk is logged once, and costs only the history."""
        line = _encode(event) + b"\n"
        try:
            if self._missing:  # perhaps there is room by now
                os.close(self._fd)
                self._open()
            if self._size and self._size + len(line) > self._max_bytes:
                os.rename(self._path, self._path + ".1")
                os.close(self._fd)
                self._open()
            self._size += os.write(self._fd, line)
        except OSError as e:
            if not self._failed:
                log.warning("keep events in `%s`: %s", self._path, e.strerror)
            self._failed = True
        else:
            self._failed = False

    def read(self, since_ns: int, until_ns: int) -> Iterator[Event]:
        """The events of that time, both ends included, oldest first."""
        for path in (self._path + ".1", self._path):
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as f:
                for line in f:
                    try:
                        event = _decode(line)
                        at = event["timeNano"]
                    except (msgspec.DecodeError, KeyError, TypeError, RecursionError):
                        continue  # half a line: the disk was full, or the power went
                    if since_ns <= at <= until_ns:
                        yield event

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
