"""Bounds of what a peer may cost: bytes that are kept for it, and work that brings nothing on."""

from __future__ import annotations

import time

from ketch.rpc.frames import ConnectionFailure, H2Error

MESSAGE = 16 << 20  # bytes of a message, as BuildKit's peers bound it
WINDOW = 4 << 20  # bytes of one stream that nobody has taken yet
CONNECTION_WINDOW = 16 << 20
HELD = 64 << 20  # bytes of all streams that nobody has taken yet; above it the connection's window stays shut
STREAMS = 1024  # calls of a peer at once
HEADERS = 256 << 10  # bytes of a block of headers, packed as well as unpacked
QUEUED = 512 << 10  # bytes for the peer: above it senders wait …
UNREAD = 4 << 20  # … and above it a peer that makes us answer and does not read loses the connection
GREETING_S = 10.0  # for the peer's first frame
FAREWELL_S = 1.0  # for sending what is left, before a connection is closed

_BURST, _PER_SECOND, _EARNED = 1000.0, 100.0, 10.0


class Allowance:
    """A bound on requests that only keep us busy: pings, settings, resets, empty frames.

    So many at once, so many each second; data in either direction earns some, since peers ping to measure the
    way that data takes.
    """

    def __init__(self) -> None:
        self._left, self._at = _BURST, time.monotonic()

    def spend(self, what: str) -> None:
        """Count one; too many end the connection."""
        if self._left < 1:
            now = time.monotonic()
            self._left = min(_BURST, self._left + (now - self._at) * _PER_SECOND)
            self._at = now
            if self._left < 1:
                raise ConnectionFailure(H2Error.ENHANCE_YOUR_CALM, f"too many frames without use, the last a {what}")
        self._left -= 1

    def earn(self) -> None:
        """Data went one way or the other."""
        if self._left < _BURST:
            self._left += _EARNED
