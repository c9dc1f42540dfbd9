"""Long streams between clients on the event loop and blocking work in threads."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import threading
from typing import IO, TYPE_CHECKING, Any, TypeVar

from ketch.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from ketch.engine.context import Context

log = logging.getLogger(__name__)
T = TypeVar("T")
_CHUNK = 1 << 18


class BodyReader(io.RawIOBase):
    """A request's body (an async iterator of chunks) as a blocking file, to be read in a thread."""

    def __init__(self, chunks: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._chunks = chunks
        self._loop = loop
        self._rest = memoryview(b"")
        self._cancelled = False

    def cancel(self) -> None:
        """Make the next read fail: whoever sent the body is gone."""
        self._cancelled = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            if self._cancelled:
                raise Unavailable("read the request's body: the client went away")
            chunk = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        n = min(len(buffer), len(self._rest))
        buffer[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n

    async def _next(self) -> bytes | None:
        return await anext(self._chunks, None)


async def in_own_thread(work: Callable[[], T]) -> T:
    """Run blocking work that a slow client may hold up in a thread of its own.

    The threads of ``asyncio.to_thread`` are few: some stalled transfers there would stop everything else.  A caller
    that is cancelled does not end the work.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
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
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="transfer", daemon=True).start()
    return await future


async def written(ctx: Context, write: Callable[[IO[bytes]], None]) -> AsyncGenerator[bytes, None]:
    """What ``write(file)`` writes in a thread, as chunks; a client that goes away breaks its pipe and so ends it."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    loop = asyncio.get_running_loop()

    def work() -> None:
        with open(write_fd, "wb") as f:
            write(f)

    task = ctx.background(in_own_thread(work))
    ready = asyncio.Event()
    loop.add_reader(read_fd, ready.set)
    whole = False
    try:
        while True:
            try:
                chunk = os.read(read_fd, _CHUNK)
            except BlockingIOError:
                ready.clear()
                await ready.wait()
                continue
            if not chunk:
                whole = True
                break
            yield chunk
    finally:
        loop.remove_reader(read_fd)
        os.close(read_fd)
        if not whole:
            task.add_done_callback(_after_leaving)
    await task


def _after_leaving(task: asyncio.Task[None]) -> None:
    """Look at the error of work whose reader has left, which is a broken pipe; another one is worth a line."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, BrokenPipeError):
        log.warning("write for a client that went away: %s", error)
