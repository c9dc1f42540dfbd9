"""Background tasks of the engine: short work that is waited for at the end, and watchers that are not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")
_LAST_S = 5.0


class BackgroundTasks:
    """Holds references to running tasks, without which they may be collected; a task reports its own failure."""

    def __init__(self) -> None:
        self._brief: set[asyncio.Task[Any]] = set()
        self._watchers: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work that `drain` waits for (a commit, a load)."""
        return _keep(self._brief, work)

    def watch(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work that may last as long as a container; `cancel_watchers` ends it."""
        return _keep(self._watchers, work)

    async def drain(self) -> None:
        """Wait, for a limited time, for the work under way; the next start undoes what it leaves."""
        if pending := [t for t in self._brief if t is not asyncio.current_task()]:
            await asyncio.wait(pending, timeout=_LAST_S)

    def cancel_watchers(self) -> None:
        """Cancel the tasks that wait for containers to end."""
        for task in list(self._watchers):
            task.cancel()


def _keep(tasks: set[asyncio.Task[Any]], work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task
