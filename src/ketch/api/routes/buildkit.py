"""BuildKit's clients: connections that become gRPC's, and sessions."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING

from ketch.api import streams
from ketch.errors import InvalidArgument, UnclassifiedArgument

if TYPE_CHECKING:
    from aiohttp import web

    from ketch.api.call import Call

_PROTOCOL = "h2c"


async def grpc(call: Call) -> web.StreamResponse:
    """Serve gRPC on the connection."""
    asked = call.request.headers.get("Upgrade", "")
    if not asked:
        raise UnclassifiedArgument("no upgrade proto in request")
    if asked != _PROTOCOL:
        raise UnclassifiedArgument(f"protocol {asked} not supported")
    server = await call.buildkit.server()
    call.buildkit.take(*_taken(call), server.serve)
    return streams.Gone()


async def session(call: Call) -> web.StreamResponse:
    """Serve a session on the connection: the client answers, the builder calls."""
    headers = call.request.headers
    if not headers.get("Upgrade"):
        raise InvalidArgument("no upgrade proto in request")
    by_name = {name.lower(): headers.getall(name) for name in headers}
    server = await call.buildkit.server()
    server.check_session(by_name)
    call.buildkit.take(*_taken(call), partial(server.serve_session, headers=by_name))
    return streams.Gone()


def _taken(call: Call) -> tuple[socket.socket, bytes]:
    protocol = call.request.headers["Upgrade"]
    stream = streams.take_over(
        call.request, f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
    )
    return socket.socket(fileno=stream.fd), stream.initial


ROUTES = (
    ("POST", "/session", session),
    ("POST", "/grpc", grpc),
)
