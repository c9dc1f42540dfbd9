"""A thread for blocking calls that must not run concurrently, such as those on the kernel's network."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class SerialThread:
    """A thread that runs calls in the order of their requests."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, name)

    async def run(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a call on the thread, and wait for its result."""
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        return await loop.run_in_executor(self._executor, lambda: context.run(call, *args, **kwargs))

    def close(self) -> None:
        """Wait for the calls under way, and end the thread."""
        self._executor.shutdown()
