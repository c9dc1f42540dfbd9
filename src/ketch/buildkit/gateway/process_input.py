"""The input of a process on its way from a client that may send faster than the process reads."""

from __future__ import annotations

import asyncio
from collections import deque

WAITING = 1 << 20  # bytes that may wait, and then one piece more


class ProcessInput:
    """One: whoever brings more than may wait has to wait."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = self._dropped = False
        self._changed = asyncio.Event()

    async def put(self, data: bytes, *, end: bool) -> None:
        """Take a piece, and perhaps the end; both are dropped when nobody wants any more."""
        while self._size >= WAITING and not self._dropped:
            self._changed.clear()
            await self._changed.wait()
        if self._ended or self._dropped:
            return
        if data:
            self._pieces.append(data)
            self._size += len(data)
        self._ended = end
        self._changed.set()

    async def get(self) -> bytes | None:
        """The next piece; None at the end."""
        while not self._pieces:
            if self._ended or self._dropped:
                return None
            self._changed.clear()
            await self._changed.wait()
        data = self._pieces.popleft()
        self._size -= len(data)
        self._changed.set()
        return data

    def drop(self) -> None:
        """Want no more of it."""
        self._dropped = True
        self._pieces.clear()
        self._size = 0
        self._changed.set()
