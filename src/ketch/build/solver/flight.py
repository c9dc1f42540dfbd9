"""Work that is done once for all who wait for it, and stopped when nobody does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from typing import Any

_T = TypeVar("_T")


class Flight(Generic[_T]):
    """One piece of work; what it gave or raised is kept.  In the event loop."""

    __slots__ = ("_task", "_waiting")

    def __init__(self) -> None:
        self._task: asyncio.Task[_T] | None = None
        self._waiting = 0

    @property
    def begun(self) -> bool:
        """Whether it runs, or has ended otherwise than by being stopped."""
        return self._task is not None and not self._stopped(self._task)

    def _stopped(self, task: asyncio.Task[_T]) -> bool:
        return task.cancelled() or (not task.done() and not self._waiting)

    async def wait(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """The result as soon as it is there; ``work`` begins it where nobody has.

        The last one of those who wait that is cancelled stops the work, and goes when that has ended.
        """
        while self._task is not None and self._stopped(self._task):
            stopping = self._task
            await asyncio.wait([stopping])
            if self._task is stopping:
                self._task = None
        if self._task is None:
            self._task = asyncio.create_task(work())
            self._task.add_done_callback(_retrieved)
        task = self._task
        self._waiting += 1
        try:
            await asyncio.wait([task])
        finally:
            self._waiting -= 1
            if not self._waiting and not task.done():
                task.cancel()
                await ended([task])
        if task.cancelled():
            raise KetchError("context canceled")  # by itself: somebody waits for it
        return task.result()


class Errand(Generic[_T]):
    """Short work that is done once, by the first who wants it; if that one is cancelled, the next one begins anew.

    Cheaper than a `Flight`: it needs no task of its own.
    """

    __slots__ = ("_done", "_failed", "_under_way")

    def __init__(self) -> None:
        self._under_way: asyncio.Future[None] | None = None
        self._done: list[_T] = []
        self._failed: Exception | None = None

    async def wait(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """The result, or the error."""
        while self._under_way is not None:
            await asyncio.wait([self._under_way])
        if self._failed is not None:
            raise self._failed
        if not self._done:
            self._under_way = asyncio.get_running_loop().create_future()
            try:
                self._done.append(await work())
            except Exception as e:
                self._failed = e
                raise
            finally:
                self._under_way.set_result(None)
                self._under_way = None
        return self._done[0]


def _retrieved(task: asyncio.Task[_T]) -> None:
    if not task.cancelled():
        task.exception()


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until tasks have ended, however often this is cancelled; CancelledError after that if it was."""
    pending, cancelled = set(tasks), False
    while pending:
        try:
            _, pending = await asyncio.wait(pending)
        except asyncio.CancelledError:
            cancelled = True
            pending = {task for task in pending if not task.done()}
    if cancelled:
        raise asyncio.CancelledError
