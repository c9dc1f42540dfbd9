"""Waiting for sockets, and for work that blocks: a task of asyncio does it, or a thread.

All of the interface is written once, as coroutines that wait here and nowhere else.  With `Blocking` they wait in the
kernel and never suspend, so that `finished` runs one to its end as if it were a function, without an event loop.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import _socket
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any

    Deadline = float | None  # of time.monotonic()

_T = TypeVar("_T")
_READ, _WRITE = select.POLLIN, select.POLLOUT


def after(timeout_s: float | None) -> Deadline:
    """The moment in so many seconds; None: never."""
    return None if timeout_s is None else time.monotonic() + timeout_s


class Waiter(Protocol):
    """A thread or a task, as far as it waits."""

    async def ready(self, sock: _socket.socket, *, read: bool, write: bool, deadline: Deadline) -> None:
        """Wait until a socket can be read, or written (TimeoutError after the deadline)."""

    async def called(self, function: Callable[[], _T]) -> _T:
        """The result of a function that may block."""

    async def whole(self, work: Coroutine[Any, Any, _T], undo: Callable[[_T], Awaitable[None]]) -> _T:
        """The result of work that a cancellation does not cut in two: it is finished then, and undone."""

    async def sleep(self, seconds: float) -> None:
        """Let some time pass."""


class Blocking:
    """The calling thread."""

    async def ready(self, sock: _socket.socket, *, read: bool, write: bool, deadline: Deadline) -> None:
        """Wait in poll(2)."""
        poll = select.poll()
        poll.register(sock, (_READ if read else 0) | (_WRITE if write else 0))
        if deadline is None:
            poll.poll()
            return
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000 + 0.999):
            raise TimeoutError

    async def called(self, function: Callable[[], _T]) -> _T:
        """Call it."""
        return function()

    async def whole(self, work: Coroutine[Any, Any, _T], undo: Callable[[_T], Awaitable[None]]) -> _T:
        """Do it; threads are not cancelled."""
        return await work

    async def sleep(self, seconds: float) -> None:
        """Let the thread sleep."""
        time.sleep(seconds)  # noqa: ASYNC251 - that is what it is for


def finished(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that waits with `Blocking`, and return its result."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        work.close()
    raise RuntimeError("a coroutine of a blocking engine wanted an event loop")


class Asyncio:
    """The running task; the event loop watches the sockets."""

    async def ready(self, sock: _socket.socket, *, read: bool, write: bool, deadline: Deadline) -> None:
        """Wait in the loop; one task at a time for each direction of a socket."""
        import asyncio

        loop = asyncio.get_running_loop()
        seen: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not seen.done():
                seen.set_result(None)

        if read:
            loop.add_reader(sock, tell)
        if write:
            loop.add_writer(sock, tell)
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                await seen
        finally:
            if read:
                loop.remove_reader(sock)
            if write:
                loop.remove_writer(sock)

    async def whole(self, work: Coroutine[Any, Any, _T], undo: Callable[[_T], Awaitable[None]]) -> _T:
        """Do it in a task of its own."""
        import asyncio

        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:

            async def undone() -> None:
                await asyncio.wait((task,))
                if not task.cancelled() and task.exception() is None:
                    await undo(task.result())

            await asyncio.shield(asyncio.ensure_future(undone()))  # which goes on if this is cancelled, too
            raise

    async def called(self, function: Callable[[], _T]) -> _T:
        """Call it in a thread of the loop's."""
        import asyncio

        return await asyncio.to_thread(function)

    async def sleep(self, seconds: float) -> None:
        """Let other tasks run meanwhile."""
        import asyncio

        await asyncio.sleep(seconds)
