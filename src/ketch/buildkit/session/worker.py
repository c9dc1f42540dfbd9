"""A thread of a transfer's own for its blocking work: a disk that stalls holds up nobody else."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from ketch.threads import to_the_end

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

T = TypeVar("T")


class Worker:
    """One thread, which is started with the first work; used in the event loop as a context."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False)  # what ran has ended already

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """The result of work, which has ended when this returns, even cancelled."""
        return await to_the_end(asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments))
