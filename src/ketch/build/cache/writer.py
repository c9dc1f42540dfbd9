"""The records of the build cache beside the layers that they need: written when those are on the disk."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.cache.records import CacheRecords
    from ketch.build.providers import BuildSnapshots

log = logging.getLogger(__name__)
_SOON_S = 1.0


class CacheWriter:
    """One who writes records, never twice at a time: what comes meanwhile is written together.  In the event loop.

    Nobody waits for what is added in the middle of a build: it is written a moment later, with what follows.
    """

    def __init__(self, records: CacheRecords, snapshots: BuildSnapshots) -> None:
        self.records = records
        self._snapshots = snapshots
        self._thread = ThreadPoolExecutor(1, "build-cache")
        self._next: asyncio.Future[None] | None = None  # the pass that is still to begin
        self._timer: asyncio.TimerHandle | None = None
        self._hurry = self._running = False
        self._held: list[ExitStack] = []  # leases of layers that the next pass writes records of

    async def settle(self, *, succeeded: bool) -> None:
        """Hold the layers of what is not written yet, so that a build's lease can end; begin to bring them to the disk.

        After one that has ``succeeded`` comes a `flush`, when its image has been made, which tells the layers' sizes.
        """
        if self.records.unwritten():
            held = await asyncio.to_thread(self._hold)
            self._held.append(held)
            asyncio.get_running_loop().run_in_executor(self._thread, self._sync)
        if succeeded:
            self.begin()
        else:
            self._begin_now()

    def _hold(self) -> ExitStack:
        with ExitStack() as stack:
            stack.enter_context(self._snapshots.lease()).hold(*self.records.unwritten())
            return stack.pop_all()

    def _sync(self) -> None:
        """Bring layers to the disk that are to be recorded; what fails is found out again by who records them."""
        with suppress(KetchError, OSError):
            self._snapshots.sync(self.records.unwritten())

    def begin(self) -> asyncio.Future[None]:
        """Have what has changed written soon; returns what ends with that."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            if not self._running:
                self._timer = asyncio.get_running_loop().call_later(_SOON_S, self._start)
        return self._next

    async def flush(self) -> None:
        """Return when everything is written that had changed before the call.

        What cannot be written is forgotten, with a line in the daemon's log: no build fails for its cache.
        """
        await asyncio.shield(self._begin_now())

    def _begin_now(self) -> asyncio.Future[None]:
        """Have it written as soon as what is being written has been."""
        waiting = self.begin()
        self._hurry = True
        if not self._running:
            self._start()
        return waiting

    def _start(self) -> None:
        waiting, self._next, self._hurry, self._running = self._next, None, False, True
        held, self._held = self._held, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._write, held)

        def ended(done: asyncio.Future[None]) -> None:
            self._running = False
            if not done.cancelled() and (error := done.exception()) is not None:
                log.error("the build cache could not be written", exc_info=error)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
            if self._hurry:
                self._start()
            elif self._next is not None:
                self._timer = asyncio.get_running_loop().call_later(_SOON_S, self._start)

        work.add_done_callback(ended)

    def _write(self, held: Sequence[ExitStack]) -> None:
        """Write what has changed, and remove the layers that nothing needs then; blocking."""
        with ExitStack() as stack:
            for one in held:
                stack.enter_context(one)
            lease = stack.enter_context(self._snapshots.lease())
            lease.hold(*self.records.unwritten(), *self.records.dropped())
            try:
                self.records.flush(self._snapshots.sync, self._snapshots.size)
            except (KetchError, OSError) as e:
                log.warning("the build cache could not be written: %s", e)

    def close(self) -> None:
        """Wait for what is being written."""
        self._thread.shutdown()
