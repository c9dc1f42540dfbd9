"""Blocking work beside the event loop, which is waited for to its end, also when the caller is cancelled.

A thread cannot be ended from outside: who goes on before it has ended undoes what it is still doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_Result = TypeVar("_Result")


async def run_to_end(work: Callable[..., _Result], *arguments: Any) -> _Result:
    """Run ``work`` in a thread; cancelled, wait for its end first, so that undoing does not run beside it."""
    return await to_the_end(asyncio.to_thread(work, *arguments))


async def in_own_thread(work: Callable[[], _Result]) -> _Result:
    """Run blocking work that a slow client may hold up in a thread of its own.

    The threads of ``asyncio.to_thread`` are few: some stalled transfers there would stop everything else.  A caller
    that is cancelled does not end the work, and the process's end does not wait for it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def finish(result: _Result | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as e:  # it is raised where the result is awaited
            error = e
        with contextlib.suppress(RuntimeError):  # the daemon has ended, and its loop with it
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, name="work", daemon=True).start()
    return await future


async def to_the_end(work: Awaitable[_Result], stop: Callable[[], object] | None = None) -> _Result:
    """Wait for ``work``; cancelled, even more than once, call ``stop`` and wait for its end first.

    The cancellation is what the caller hears of then, not how the work ended.
    """
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                continue
        if not running.cancelled():
            running.exception()  # seen
        raise
