"""Long streams between clients on the event loop and blocking work in threads."""

from __future__ import annotations

import asyncio
import io
import os
from typing import IO, TYPE_CHECKING, Any

from ketch.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ketch.engine.context import Context

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


async def written(ctx: Context, write: Callable[[IO[bytes]], None]) -> AsyncIterator[bytes]:
    """What ``write(file)`` writes in a thread, as chunks; a client that goes away breaks its pipe and so ends it."""
    read_fd, write_fd = os.pipe()

    def work() -> None:
        with open(write_fd, "wb") as f:
            write(f)

    task = ctx.background(asyncio.to_thread(work))
    try:
        while chunk := await asyncio.to_thread(os.read, read_fd, _CHUNK):
            yield chunk
    finally:
        os.close(read_fd)
    await task
