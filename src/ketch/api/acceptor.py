"""Acceptance of connections; without a free file descriptor they wait, and the log says so once.

asyncio's own server goes on to try with each connection that waits, says so with a traceback each time, and sets as
many timers, of which each begins again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)
BACKLOG = 4096  # the kernel takes net.core.somaxconn when that is less
_AT_ONCE = 64  # then others have a turn
_PAUSE_S, _LOG_AGAIN_S = 1.0, 60.0
_BEGIN_S = 0.05  # a connection is with its server by then, where it need not be decrypted first
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Listens on a bound socket, the caller's to close, and has ``serve`` called with each connection."""

    def __init__(
        self, listener: socket.socket, serve: Callable[[socket.socket], Awaitable[object]], *, hands_over: bool = False
    ) -> None:
        """``hands_over``: ``serve`` gives the connection to a server, waiting for nobody, and returns."""
        self._listener = listener
        self._serve = serve
        self._hands_over = hands_over
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Future[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._logged_at, self._unlogged = float("-inf"), 0

    def start(self) -> None:
        """Begin to accept."""
        self._listener.setblocking(False)
        self._listener.listen(BACKLOG)
        self._loop.add_reader(self._listener, self._ready)

    def _ready(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as e:
                if e.errno not in _SCARCE:
                    raise
                self._wait(e)
                return
            connection.setblocking(False)
            task = asyncio.ensure_future(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("serve a connection: %s", error)

    def _wait(self, why: OSError) -> None:
        """Pause accepting for a moment."""
        now = self._loop.time()
        if now - self._logged_at >= _LOG_AGAIN_S:
            more = f" (this was so {self._unlogged} more times)" if self._unlogged else ""
            log.error("accept a connection: %s; connections wait%s", why.strerror, more)
            self._logged_at, self._unlogged = now, 0
        else:
            self._unlogged += 1
        self._loop.remove_reader(self._listener)
        self._timer = self._loop.call_later(_PAUSE_S, self._loop.add_reader, self._listener, self._ready)

    async def close(self) -> None:
        """Stop accepting, and cancel the running ``serve`` calls, but for those that have only begun.

        Those that hand over always do: whoever was let in is heard, however slow the machine is.
        """
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=None if self._hands_over else _BEGIN_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
