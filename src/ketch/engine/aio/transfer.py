"""Long streams between clients on the event loop and blocking work in threads."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import io
import logging
import os
import threading
from typing import IO, TYPE_CHECKING, Any

from ketch.errors import Unavailable
from ketch.threads import in_own_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine

    Background = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]

log = logging.getLogger(__name__)
_CHUNK = 1 << 20
_AHEAD = 4 << 20


class BodyReader(io.RawIOBase):
    """A request's body (an async iterator of chunks) as a blocking file, to be read in a thread.

    Made in the event loop.  Some megabytes are taken in ahead of the reader, so that neither waits for the other.
    """

    def __init__(self, chunks: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._chunks = chunks
        self._loop = loop
        self._rest = memoryview(b"")
        self._news = threading.Condition()  # guards what follows
        self._ready: collections.deque[bytes] = collections.deque()
        self._size = 0
        self._ended = self._cancelled = False
        self._error: BaseException | None = None
        self._room = asyncio.Event()
        self._pump = loop.create_task(self._take_in())

    async def _take_in(self) -> None:
        try:
            async for chunk in self._chunks:
                with self._news:
                    self._ready.append(chunk)
                    self._size += len(chunk)
                    self._news.notify()
                    full = self._size >= _AHEAD
                    if full:
                        self._room.clear()
                if full:
                    await self._room.wait()
        except Exception as e:  # it is raised where the body is read
            self._error = e
        finally:
            with self._news:
                self._ended = True
                self._news.notify()

    def cancel(self) -> None:
        """Make the next read fail: the sender is gone, or the rest is not needed."""
        with self._news:
            self._cancelled = True
            self._news.notify()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._pump.cancel)

    async def abandon(self) -> None:
        """`cancel`, and return when nothing waits for the client's bytes any more.

        What is left of the body is then the server's to throw away: a client that is still sending reads the answer.
        """
        self.cancel()
        self._pump.cancel()
        await asyncio.wait([self._pump])

    def close(self) -> None:
        """Close the reading end."""
        if not self.closed and not self._pump.done():
            self.cancel()
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest and not self._next():
            return 0
        n = min(len(buffer), len(self._rest))
        buffer[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes, as they come: without a copy when a piece fits."""
        if size < 0:
            return super().read(size) or b""
        if not self._rest and not self._next():
            return b""
        part = self._rest[:size]
        self._rest = self._rest[size:]
        return part.obj if len(part) == len(part.obj) else bytes(part)  # type: ignore[arg-type, return-value]

    def _next(self) -> bool:
        """Wait for a piece; False at the end."""
        with self._news:
            while not self._ready:
                if self._cancelled:
                    raise Unavailable("read the request's body: the client went away")
                if self._ended:
                    if self._error is not None:
                        raise self._error
                    return False
                self._news.wait()
            chunk = self._ready.popleft()
            self._size -= len(chunk)
            low = self._size < _AHEAD // 2 and not self._room.is_set()
        if low:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._room.set)
        self._rest = memoryview(chunk)
        return True


async def written(background: Background, write: Callable[[IO[bytes]], None]) -> AsyncGenerator[bytes, None]:
    """The output of ``write(file)``, which runs in a thread, as chunks; a client that leaves breaks its pipe.

    ``background`` makes the task that outlives such a client.
    """
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    with contextlib.suppress(OSError):  # the kernel keeps count of pipes' memory; a smaller one only is slower
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, _CHUNK)
    loop = asyncio.get_running_loop()

    def work() -> None:
        with open(write_fd, "wb") as f:
            write(f)

    task = background(in_own_thread(work))
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
    """Log the error of work whose reader has left, unless it is the broken pipe."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, BrokenPipeError):
        log.warning("write for a client that went away: %s", error)
