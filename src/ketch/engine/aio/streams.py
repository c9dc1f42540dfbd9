"""Streams of clients: the connection as the engine sees it, and the client's options."""

from __future__ import annotations

import asyncio
import os

import msgspec

from ketch.errors import Unavailable


class AttachOptions(msgspec.Struct, kw_only=True):
    """The query of ``attach``; ``stream`` False means: only what was logged (with ``logs``)."""

    stream: bool = False
    logs: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: str = ""
    raw: bool = False  # no frames' headers, terminal or not


class LogOptions(msgspec.Struct, kw_only=True):
    """The query of ``logs``; times in ns since the epoch (0: no limit), ``tail`` None for everything."""

    stdout: bool = False
    stderr: bool = False
    since_ns: int = 0
    until_ns: int = 0
    tail: int | None = None
    timestamps: bool = False
    details: bool = False
    follow: bool = False


class ClientStream:
    """A descriptor that belongs to the engine from now on, and the bytes that came before it was taken.

    ``fd`` is a non-blocking stream socket: a copy of the client's own, or one end of a pair behind which
    the API relays (TLS).  Whoever holds the stream closes it, once.

    ``told_ending``: the last that the client gets is a frame that says how the process ended, and its connection is
    ended by who holds another copy.

    ``hangs_up``: an exec'd process is hung up when the client is gone.
    """

    def __init__(self, fd: int, initial: bytes = b"") -> None:
        self.fd = fd
        self.initial = initial
        self.told_ending = False
        self.hangs_up = False

    def close(self) -> None:
        """Give the descriptor up; a second call does nothing."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    async def write(self, data: bytes) -> None:
        """Send everything; Unavailable when the client is gone."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.fd, view) :]
            except BlockingIOError:
                await self._writable()
            except OSError as e:
                raise Unavailable(f"write to the attached client: {e.strerror}") from e

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self.fd, ready.set_result, None)
        try:
            await ready
        finally:
            loop.remove_writer(self.fd)
