"""Taking the client's connection away from HTTP: upgrade, then hand over the socket itself.

A client asks with ``Upgrade: tcp`` (answered with 101) or, the old way, without (answered with 200 and a
body that never ends).  Either way the bytes that follow are not HTTP: the socket is duplicated, aiohttp's
transport is dropped without a shutdown, and the engine passes the copy to the container's monitor.
Only where that cannot be (TLS) a relay stays here, with one end of a socketpair for the engine.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ketch.engine.streams import ClientStream
from ketch.errors import Unavailable

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


class Gone(web.StreamResponse):
    """What a handler returns after ``hijack``: nothing more is written by HTTP."""

    async def prepare(self, _request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Do not write headers."""
        return None

    async def write_eof(self, _data: Any = b"") -> None:
        """Do not write an end."""


def hijack(request: web.BaseRequest, content_type: str) -> ClientStream:
    """Answer the upgrade and take the connection; the caller returns ``Gone()`` afterwards."""
    transport = request.transport
    if transport is None:
        raise Unavailable("take over the connection: the client is gone")
    transport.pause_reading()
    if request.headers.get("Upgrade", "").lower() == "tcp":
        head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
    else:
        head = "HTTP/1.1 200 OK\r\n"
    transport.write(f"{head}Content-Type: {content_type}\r\n\r\n".encode("ascii"))
    initial = _early_bytes(request)
    if transport.get_extra_info("sslcontext") is not None:
        return ClientStream(_relay(transport), initial)
    if transport.get_write_buffer_size():
        raise Unavailable("take over the connection: the client does not read")
    fd = os.dup(transport.get_extra_info("socket").fileno())
    transport.abort()  # closes aiohttp's descriptor; the connection lives on in ours
    return ClientStream(fd, initial)


def _early_bytes(request: web.BaseRequest) -> bytes:
    """What the client sent behind its request before the answer; aiohttp keeps it for the upgraded protocol."""
    protocol = request.protocol
    tail = bytes(getattr(protocol, "_message_tail", b""))
    protocol._message_tail = b""
    return tail


def _relay(transport: asyncio.Transport) -> int:
    """Connect ``transport`` with a socketpair; returns the far end."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    near.setblocking(False)
    far.setblocking(False)
    relay = _Relay(transport, near)
    transport.set_protocol(relay)
    transport.resume_reading()
    return far.detach()


class _Relay(asyncio.Protocol):
    """Copies between a transport and a socket until either ends, with back-pressure both ways."""

    def __init__(self, transport: asyncio.Transport, sock: socket.socket) -> None:
        self._transport = transport
        self._sock = sock
        self._queue: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._loop = asyncio.get_running_loop()
        self._tasks = (self._loop.create_task(self._outwards()),)

    def data_received(self, data: bytes) -> None:
        self._queue.append(data)
        if len(self._queue) == 1:
            self._transport.pause_reading()
            self._loop.create_task(self._inwards())

    async def _inwards(self) -> None:
        try:
            while self._queue:
                await self._loop.sock_sendall(self._sock, self._queue[0])
                self._queue.pop(0)
            self._transport.resume_reading()
        except OSError:
            self._transport.close()

    async def _outwards(self) -> None:
        try:
            while data := await self._loop.sock_recv(self._sock, 1 << 16):
                await self._writable.wait()
                self._transport.write(data)
        except ConnectionError:
            self._transport.abort()
        self._transport.close()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, _exc: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()
        self._sock.close()
