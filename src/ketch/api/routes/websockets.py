"""``/containers/{id}/attach/ws`` and ``/ketch/exec/{id}/ws``: streams over a WebSocket, for browsers and docker-py.

    client ══WebSocket══ ketchd ──socketpair── monitor

Only here (and behind TLS) ketchd relays.  Frames are binary and raw: stdout and stderr are not told apart.  A slow
client is not read ahead for: its end of the pair fills and the monitor reads its log for it.  The connection
ends with ketchd.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from ketch.api import query
from ketch.engine.aio.streams import AttachOptions, ClientStream
from ketch.errors import InvalidArgument, KetchError, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.api.call import Call

log = logging.getLogger(__name__)
PAGE_PROTOCOL = "ketch.page"  # what the page's scripts offer beside the key of their session
_CHUNK = 1 << 16
_GOODBYE_S = 2.0


async def attach(call: Call) -> web.StreamResponse:
    """Join the container's streams."""
    # Before 1.42 the three streams could not be chosen.
    every = call.version < (1, 42)
    options = AttachOptions(
        stream=query.flag(call.query, "stream"),
        logs=query.flag(call.query, "logs"),
        stdin=every or query.flag(call.query, "stdin"),
        stdout=every or query.flag(call.query, "stdout"),
        stderr=every or query.flag(call.query, "stderr"),
        detach_keys=call.query.get("detachKeys", ""),
        raw=True,
    )
    container = await call.engine.containers.check_attach(call.path["id"])
    async with _relayed(call, "attach") as (far, stream):
        joined = asyncio.ensure_future(call.engine.containers.attach(container.id, options, stream))
    await joined
    return far


async def run(call: Call) -> web.StreamResponse:
    """Start an exec with its streams on this connection; without it the command is hung up, as on a terminal.

    It is the monitor that sees the connection's end, also when that is ketchd's.
    """
    exec_ = call.engine.execs.get(call.path["id"])
    rows_and_columns = list(query.size(call.query)) if "h" in call.query else None
    await call.engine.execs.check_startable(exec_.id)
    async with _relayed(call, "exec") as (far, stream):
        stream.hangs_up = True
        try:
            await call.engine.execs.start(exec_.id, console_size=rows_and_columns, stream=stream)
        except KetchError as e:
            await far.send_bytes(f"{e.message}\r\n".encode())
        finally:
            stream.close()
    return far


@contextlib.asynccontextmanager
async def _relayed(call: Call, what: str) -> AsyncIterator[tuple[web.WebSocketResponse, ClientStream]]:
    """Open the WebSocket; what the block connects the stream to is relayed behind it, until either side ends."""
    far = web.WebSocketResponse(
        timeout=_GOODBYE_S, protocols=(PAGE_PROTOCOL,), autoping=True, compress=False, max_msg_size=0
    )
    if not far.can_prepare(call.request):
        raise InvalidArgument(f"{what}: not a WebSocket request", hint="send the headers of RFC 6455 §4.1")
    _check_origin(call.request, what)
    call.started = True
    await far.prepare(call.request)
    near, theirs = socket.socketpair()
    with near:
        near.setblocking(False)
        theirs.setblocking(False)
        yield far, ClientStream(theirs.detach())
        inwards = asyncio.ensure_future(_inwards(far, near))
        outwards = asyncio.ensure_future(_outwards(near, far))
        try:
            await asyncio.wait((inwards, outwards), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (inwards, outwards):
                task.cancel()
            await asyncio.gather(inwards, outwards, return_exceptions=True)
    with contextlib.suppress(ConnectionError):
        await far.close()


def _check_origin(request: web.BaseRequest, what: str) -> None:
    """Refuse web pages: browsers let any page open a WebSocket, and name it in Origin (RFC 6455 §10.2)."""
    origin = request.headers.get("Origin", "")
    if origin and origin.partition("://")[2] != request.headers.get("Host", ""):
        raise PermissionDenied(f"{what}: a page from {origin} may not open this connection")


async def _inwards(far: web.WebSocketResponse, near: socket.socket) -> None:
    """Copy the client's messages, text or binary, to the container until the client leaves."""
    loop = asyncio.get_running_loop()
    async for message in far:
        if message.type == WSMsgType.TEXT:
            await loop.sock_sendall(near, message.data.encode())
        elif message.type == WSMsgType.BINARY:
            await loop.sock_sendall(near, message.data)


async def _outwards(near: socket.socket, far: web.WebSocketResponse) -> None:
    """Copy the container's output to the client until either ends; one piece at a time."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(near, _CHUNK):
        await far.send_bytes(data)


ROUTES = (
    ("GET", "/containers/{id}/attach/ws", attach),
    ("GET", "/ketch/exec/{id}/ws", run),
)
