"""Blocking work of sources in threads: it ends when the build is cancelled, and tells how far it is."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from ketch import threads
from ketch.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ketch.build.progress import VertexLog
    from ketch.build.providers import BuildSnapshots, LayerDraft
    from ketch.storage.content.leases import Lease

T = TypeVar("T")
_EVERY_S = 0.1


class SourceMeter:
    """A count that blocking work moves on, told to a vertex's log now and then; made in the event loop."""

    def __init__(self, log: VertexLog, name: str, total: int = 0) -> None:
        self._log, self._name, self._total = log, name, total
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._current = 0
        self._next = time.monotonic() + _EVERY_S
        log.status(name, 0, total)

    def stop(self) -> None:
        """Make the work end at its next `add`."""
        self._stopped.set()

    def add(self, count: int = 0) -> None:
        """Count on, from any thread (Unavailable: the work is to end)."""
        if self._stopped.is_set():
            raise Unavailable(f"{self._name} the build was cancelled")
        self._current += count
        now = time.monotonic()
        if count and now >= self._next:
            self._next = now + _EVERY_S
            self._loop.call_soon_threadsafe(self._log.status, self._name, self._current, self._total)

    def done(self) -> None:
        """Tell the end; in the event loop."""
        self._log.status(self._name, self._current, self._total, done=True)


async def metered(meter: SourceMeter, work: Callable[[], T]) -> T:
    """The result of blocking work that counts on a meter; cancelled, it is over before this returns.

    It has a thread of its own: a client's file system may stall, and the threads of ``asyncio.to_thread`` are few.
    """
    result = await threads.to_the_end(threads.in_own_thread(work), meter.stop)
    meter.done()
    return result


@asynccontextmanager
async def drafted(snapshots: BuildSnapshots, lease: Lease) -> AsyncIterator[LayerDraft]:
    """A new layer, whose files come in the event loop; a failure removes it once nothing of it is under way."""
    made: list[LayerDraft] = []
    try:
        await threads.run_to_end(lambda: made.append(snapshots.begin(lease)))
        yield made[0]
    except BaseException:
        for draft in made:
            await threads.run_to_end(draft.abort)
        raise
