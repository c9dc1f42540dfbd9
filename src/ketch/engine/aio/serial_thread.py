"""One thread for blocking calls that must not run beside each other, as those on the kernel's network."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class SerialThread:
    """Calls are made in the order in which they were asked for."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, name)

    async def run(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Make a call on the thread, and wait for what it returns or raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: call(*args, **kwargs))

    def close(self) -> None:
        """Wait for the calls under way, and end the thread."""
        self._executor.shutdown()
