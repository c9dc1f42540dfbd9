"""Group commit: one fsync for all callers that wait for one, so that a hundred starts do not make a hundred.

The event loop commits at once, so that everybody sees the change, and says "done" to the client when it is on the disk.
Meanwhile it goes on: an fsync takes as long as other programs' writes make it take.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class GroupCommit:
    """``sync`` is called on a thread of its own, never twice at a time; used from the event loop's thread only."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._thread = ThreadPoolExecutor(1, "sync")
        self._next: asyncio.Future[None] | None = None  # for whoever comes while one runs: that one began too early
        self._running = False

    async def __call__(self) -> None:
        """Return when a ``sync`` that began after this call has ended (or raise what it raised)."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        mine = self._next
        if not self._running:
            self._begin()
        await asyncio.shield(mine)

    def _begin(self) -> None:
        waiting, self._next, self._running = self._next, None, True
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._sync)
        work.add_done_callback(lambda done: self._end(done, waiting))

    def _end(self, done: asyncio.Future[None], waiting: asyncio.Future[None] | None) -> None:
        self._running = False
        error = done.exception()
        if waiting is not None and error is not None:
            waiting.set_exception(error)
            waiting.exception()  # retrieved: whoever waited may be gone
        elif waiting is not None:
            waiting.set_result(None)
        if self._next is not None:
            self._begin()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()
