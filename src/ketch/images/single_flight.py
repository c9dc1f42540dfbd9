"""Single flight: concurrent requests for the same work share one execution (downloads, layers).

Who asks first starts it, the others join; all get its progress and its result or error.  Who goes away leaves it to the
others; when the last one has gone it is cancelled, and whoever asks then waits until it has ended before starting anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Report = Callable[[Any], None]

T = TypeVar("T")


class _Job(Generic[T]):
    def __init__(self) -> None:
        self.listeners: list[Report] = []
        self.last: Any = None
        self.task: asyncio.Task[T]

    def report(self, item: Any) -> None:
        self.last = item
        for listener in list(self.listeners):
            listener(item)


class SingleFlight(Generic[T]):
    """Jobs by key; used from one event loop."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job[T]] = {}
        self._ending: dict[str, asyncio.Task[T]] = {}

    async def join(self, key: str, work: Callable[[Report], Awaitable[T]], report: Report) -> T:
        """The result of ``work``, or of the call that is under way for this key."""
        while key in self._ending:
            await asyncio.wait([self._ending[key]])
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = self._begin(key, work)
        elif job.last is not None:
            report(job.last)
        job.listeners.append(report)
        try:
            return await asyncio.shield(job.task)
        finally:
            job.listeners.remove(report)
            if not job.listeners and not job.task.done():
                self._abandon(key, job)
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([job.task])

    def _begin(self, key: str, work: Callable[[Report], Awaitable[T]]) -> _Job[T]:
        job: _Job[T] = _Job()

        async def run() -> T:
            return await work(job.report)

        job.task = asyncio.create_task(run())
        job.task.add_done_callback(lambda task: self._ended(key, job, task))
        return job

    def _abandon(self, key: str, job: _Job[T]) -> None:
        del self._jobs[key]
        self._ending[key] = job.task
        job.task.cancel()

    def _ended(self, key: str, job: _Job[T], task: asyncio.Task[T]) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]
        if self._ending.get(key) is task:
            del self._ending[key]
        if not task.cancelled():
            task.exception()  # whoever waits has it; without this the loop complains about those that nobody waits for

    def active(self) -> frozenset[str]:
        """The keys of the calls under way."""
        return frozenset(self._jobs) | frozenset(self._ending)
