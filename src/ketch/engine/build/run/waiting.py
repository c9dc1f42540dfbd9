"""Items on their way to a build's client, with a bound for what waits when it does not read."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

_T = TypeVar("_T")
_MOST = 16 << 20  # bytes that wait; then outputs wait as well, and what commands print is left out


class WaitingItems(Generic[_T]):
    """A queue that knows how many bytes wait in it; from the event loop only."""

    def __init__(self, most: int = _MOST) -> None:
        self._items: asyncio.Queue[tuple[_T, int]] = asyncio.Queue()
        self._most, self._size = most, 0
        self._room = asyncio.Event()
        self._room.set()

    @property
    def full(self) -> bool:
        """Whether as much waits as may: what can be left out should be."""
        return self._size >= self._most

    def put(self, item: _T, size: int = 0) -> None:
        """Append an item of some bytes, whether it is full or not."""
        self._items.put_nowait((item, size))
        self._size += size
        if self.full:
            self._room.clear()

    async def get(self) -> _T:
        """The next item, as soon as there is one."""
        item, size = await self._items.get()
        self._size -= size
        if self._size <= self._most // 2:
            self._room.set()
        return item

    async def room(self) -> None:
        """Wait until there is room."""
        await self._room.wait()
