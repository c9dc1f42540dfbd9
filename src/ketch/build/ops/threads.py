"""Blocking work of operations: in a thread, which ends when the operation is cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

from ketch import threads
from ketch.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def in_thread(function: Callable[[Callable[[], None]], T]) -> T:
    """Run a function in a thread; it gets a check to be called now and then, which raises once this is cancelled.

    Cancelled, this returns when the function has ended and undone what it did.
    """
    cancelled = threading.Event()

    def check() -> None:
        if cancelled.is_set():
            raise Unavailable("the build was cancelled")

    return await threads.to_the_end(asyncio.to_thread(function, check), cancelled.set)
