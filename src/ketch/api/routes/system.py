"""``_ping``, ``version``, ``info``, ``events``, ``system/df``, and Ketch's own ``session``."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from aiohttp import web

from ketch.api import jsontext, query, streams, versions
from ketch.api.call import SESSION
from ketch.api.wire import df as wire_df
from ketch.api.wire import filters
from ketch.engine.model.api_version import API_VERSION
from ketch.errors import InvalidArgument
from ketch.undo import Undo

if TYPE_CHECKING:
    from ketch.api.call import Call

_PING = {
    "Api-Version": API_VERSION,
    "Builder-Version": "2",
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Swarm": "inactive",
    "Server": "Ketch (linux)",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}


async def ping(call: Call) -> web.StreamResponse:
    """Tell that the daemon is alive, and the API's version."""
    if call.request.method == "HEAD":
        return web.Response(headers=_PING | {"Content-Length": "0"}, content_type="text/plain", charset="utf-8")
    return web.Response(body=b"OK", headers=_PING, content_type="text/plain", charset="utf-8")


async def version(call: Call) -> web.StreamResponse:
    """Versions of the engine and its parts."""
    return call.json(call.engine.system.version())


async def info(call: Call) -> web.StreamResponse:
    """The engine and the machine."""
    return call.json(versions.shown_info(call.engine.system.info(await call.engine.networks.blockers()), call.version))


async def events(call: Call) -> web.StreamResponse:
    """A stream of JSON objects, one for each event, from ``since`` until ``until``."""
    since, until = (query.timestamp(call.query, name) if call.query.get(name) else None for name in ("since", "until"))
    if since is not None and until is not None and since > until:
        raise InvalidArgument(f"`since` time ({since // 10**9}) cannot be after `until` time ({until // 10**9})")
    matches = filters.event_predicate(query.filters(call.query))
    response = await call.stream()
    async for event in call.engine.events.subscribe(since, until):
        if matches(event):
            await response.write(jsontext.encode(event) + b"\n")
    return response


async def df(call: Call) -> web.StreamResponse:
    """Disk usage by kind of object, of all kinds or of those that are asked for."""
    kinds = call.query.getall("type", wire_df.KINDS)
    for kind in kinds:
        if kind not in wire_df.KINDS:
            raise InvalidArgument(f"unknown object type: {kind}", hint=f"known: {', '.join(wire_df.KINDS)}")
    cache = await call.engine.builds.usage() if wire_df.CACHE in kinds else ()
    answer = wire_df.answer(call.engine, await call.engine.system.df(kinds), kinds, cache)
    return call.json(versions.shown_df(answer, call.version))


async def session(call: Call) -> web.StreamResponse:
    """Begin a session, which lasts as long as the connection; the answer's header has its id."""
    if not call.request.headers.get("Upgrade"):
        raise InvalidArgument("begin a session: it needs the connection itself", hint="send `Upgrade: tcp`")
    ident = call.engine.sessions.begin()
    head = f"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{SESSION}: {ident}\r\n\r\n"
    with Undo() as undo:
        undo.callback(call.engine.sessions.give_up, ident)
        stream = streams.take_over(call.request, head)
        undo.pop_all()
    call.engine.sessions.hold(ident, socket.socket(fileno=stream.fd))
    return streams.Gone()


ROUTES = (
    ("GET", "/_ping", ping),
    ("HEAD", "/_ping", ping),
    ("GET", "/version", version),
    ("GET", "/info", info),
    ("GET", "/events", events),
    ("GET", "/system/df", df),
    ("POST", "/ketch/session", session),
)
