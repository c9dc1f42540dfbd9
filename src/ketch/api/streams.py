"""Hijacking of connections: the answer to the upgrade, then the client's socket itself.

A client asks with ``Upgrade: tcp`` (answered with 101) or, the old way, without (answered with 200 and a
body that never ends).  Either way the bytes that follow are not HTTP: the socket is duplicated, aiohttp's
transport is dropped without a shutdown, and the engine passes the copy to the container's monitor.
Behind TLS the socket is one end of a pair whose other end `api.tls` serves.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import termios
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ketch.api.connection import Connection
from ketch.engine.aio.streams import ClientStream
from ketch.errors import InvalidArgument, PermissionDenied, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.abc import AbstractStreamWriter

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_HEAD_S, _TURNS = 1.0, 10


class Gone(web.StreamResponse):
    """The response of a handler after ``hijack``: nothing more is written by HTTP."""

    async def prepare(self, _request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write no headers."""
        return None

    async def write_eof(self, _data: Any = b"") -> None:
        """Write no end of the body."""


def hijack(request: web.BaseRequest, content_type: str) -> ClientStream:
    """Answer the upgrade and take the connection; the caller returns ``Gone()`` afterwards."""
    if "Upgrade" in request.headers:
        head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
    else:  # such clients are older than the other media type
        head, content_type = "HTTP/1.1 200 OK\r\n", RAW
    return take_over(request, f"{head}Content-Type: {content_type}\r\n\r\n")


def check_serves_alone(request: web.BaseRequest, *, tty: bool) -> None:
    """Check a request for `serve_alone` (InvalidArgument)."""
    if "Upgrade" not in request.headers:
        raise InvalidArgument("this request takes the connection over", hint="send `Upgrade: tcp`")
    if tty:
        raise InvalidArgument(
            "this request has frames, and a terminal's output has none", hint="use create, attach and start"
        )


def serve_alone(request: web.BaseRequest, header: str) -> ClientStream:
    """Answer the upgrade with one more header, and take the connection for frames of output and of the end."""
    head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
    return take_over(request, f"{head}Content-Type: {MULTIPLEXED}\r\n{header}\r\n\r\n")


def take_over(request: web.BaseRequest, head: str) -> ClientStream:
    """Answer with ``head``, and take the connection; the caller returns ``Gone()`` afterwards."""
    transport = request.transport
    if transport is None:
        raise Unavailable("take over the connection: the client is gone")
    if isinstance(request.protocol, Connection) and not request.protocol.may_be_taken:
        raise PermissionDenied("take over the connection: a browser's stays with ketchd", hint="use a WebSocket")
    transport.pause_reading()
    transport.write(head.encode("ascii"))
    initial = request.protocol.take_early() if isinstance(request.protocol, Connection) else b""
    if transport.get_write_buffer_size():
        raise Unavailable("take over the connection: the client does not read")
    fd = os.dup(transport.get_extra_info("socket").fileno())
    transport.abort()  # closes aiohttp's descriptor; the connection lives on in ours
    return ClientStream(fd, initial)


def check_is_there(request: web.BaseRequest) -> None:
    """Check that the client has not gone (ConnectionError), as far as that is known by now."""
    if request.transport is None:
        raise ConnectionResetError("the client is gone")


@asynccontextmanager
async def while_connected(request: web.BaseRequest) -> AsyncIterator[None]:
    """Raise ConnectionError within this context once the client is gone, also when nothing is sent."""
    protocol, task = request.protocol, asyncio.current_task()
    assert isinstance(protocol, Connection)
    assert task is not None
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        task.cancel()

    protocol.on_lost = leave
    try:
        yield
    except asyncio.CancelledError:
        if not gone or task.uncancel():
            raise
        raise ConnectionResetError("the client is gone") from None
    finally:
        protocol.on_lost = lambda: None


async def head_taken(stream: ClientStream) -> None:
    """Wait (a moment at most) until the client has read the answer's head.

    docker-py reads the head through a buffer and goes on beside it: output that comes in the same read is lost to it.
    A unix socket knows what its peer has not read yet (unix(7), SIOCOUTQ); of TCP one learns only what has not arrived.
    """
    deadline, turns = time.monotonic() + _HEAD_S, 0
    while _unread(stream.fd) and time.monotonic() < deadline:
        # A client that is awake needs some 0.1 ms; the event loop's shortest pause is a whole one.
        await asyncio.sleep(0 if turns < _TURNS else 0.001)
        turns += 1


def _unread(fd: int) -> int:
    answer = fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0" * 4)  # the same number as SIOCOUTQ
    return int.from_bytes(answer, sys.byteorder)
