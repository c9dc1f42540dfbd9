"""``/build`` and what belongs to it, Ketch's own ``/ketch/build``; ``/session``, ``/grpc``, and checkpoints.

What only builds need is imported when there is one: no start of the daemon waits for it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import aclosing
from typing import TYPE_CHECKING

from ketch.api import jsontext, peer_fds, query, streams
from ketch.api.errors import from_registry, prefixed
from ketch.api.routes.images import progress
from ketch.api.streams import while_connected
from ketch.errors import InvalidArgument, Unimplemented

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from ketch.api.call import Call

_CHUNK = 1 << 18
_LONGEST_LINE = 8 << 20
_NO_BUILDKIT = "buildx asks for it by /grpc and /session; DOCKER_BUILDKIT=0 is the old builder"


async def build(call: Call) -> web.StreamResponse:
    """Build an image of the Dockerfile in a tar, as the old API has it; ``version=2`` asks for BuildKit's protocol."""
    version = call.query.get("version") or "1"
    if version not in ("1", "2"):
        raise InvalidArgument(f'invalid version "{version}"')
    if version == "2":
        raise Unimplemented("build image: there is no BuildKit behind POST /build", hint=_NO_BUILDKIT)
    from ketch.api.wire.building import builds as wire

    request = wire.classic(call.query, call.request.headers.get("X-Registry-Config"))
    body = call.request.content.iter_chunked(_CHUNK)
    items = call.engine.builds.classic(request, body, quiet=query.flag(call.query, "q"))
    with from_registry():
        async with while_connected(call.request):
            return await progress(call, items)  # type: ignore[arg-type]


async def own(call: Call) -> web.StreamResponse:
    """Build as ``ketch build`` asks for it: a line of JSON, a tar perhaps; events as lines."""
    from ketch.api.wire.building import builds as wire

    line, body = await _first_line(call)
    request = wire.own(line, lambda handed: peer_fds.taken(call.request, handed))
    try:
        response = await call.stream("application/x-ndjson")
    except BaseException:
        for fd in request.descriptors():
            os.close(fd)
        raise
    async with while_connected(call.request):
        async with aclosing(call.engine.builds.build(request, body)) as events:
            async for event in events:
                await response.write(jsontext.line(wire.event(event)))
    return response


async def descriptors(call: Call) -> web.StreamResponse:
    """Receive descriptors by the connection itself, for a build that has the token in its header."""
    if not call.request.headers.get("Upgrade"):
        raise InvalidArgument("receive descriptors: it needs the connection itself", hint="send `Upgrade: tcp`")
    sent = peer_fds.local(call.request).sent
    token = sent.token()
    head = f"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{peer_fds.SENT}: {token}\r\n\r\n"
    stream = streams.take_over(call.request, head)
    sent.hold(token, socket.socket(fileno=stream.fd))
    return streams.Gone()


async def _first_line(call: Call) -> tuple[bytes, AsyncIterator[bytes]]:
    """The first line of the body, and the rest (InvalidArgument: it does not end)."""
    chunks = call.request.content.iter_chunked(_CHUNK)
    found = b""
    async for chunk in chunks:
        found += chunk
        if b"\n" in chunk:
            break
        if len(found) > _LONGEST_LINE:
            raise InvalidArgument(f"build: the first line of the body is longer than {_LONGEST_LINE >> 20} MiB")
    line, _, rest = found.partition(b"\n")

    async def body() -> AsyncIterator[bytes]:
        if rest:
            yield rest
        async for chunk in chunks:
            yield chunk

    return line, body()


async def list_(call: Call) -> web.StreamResponse:
    """The last builds, newest first."""
    from ketch.api.wire.building import builds as wire

    return call.json([wire.row(record) for record in call.engine.builds.history.all()])


async def inspect(call: Call) -> web.StreamResponse:
    """One of the last builds."""
    from ketch.api.wire.building import builds as wire

    return call.json(wire.details(call.engine.builds.history.get(call.path["ref"])))


async def logs(call: Call) -> web.StreamResponse:
    """The messages of one of the last builds, a line each."""
    found = await asyncio.to_thread(call.engine.builds.logged, call.path["ref"])
    response = await call.stream("application/x-ndjson")
    await response.write(b"".join(b'{"status":%b}\n' % line for line in found))
    return response


async def forget(call: Call) -> web.StreamResponse:
    """Forget one of the last builds."""
    call.engine.builds.history.remove(call.path["ref"])
    return call.empty()


async def cancel(call: Call) -> web.StreamResponse:
    """Cancel a build; one that is not there has ended, which dockerd does not tell either."""
    build_id = call.query.get("id")
    if not build_id:
        raise InvalidArgument("build ID not provided")
    call.engine.builds.cancel(build_id)
    return call.empty(200)


async def prune(call: Call) -> web.StreamResponse:
    """Remove build cache."""
    from ketch.api.wire.building import build_cache

    options = build_cache.prune_options(call.query)
    with prefixed("failed to prune build cache: "):
        done = await call.engine.builds.prune(options)
    return call.json(build_cache.pruned(done))


async def checkpoint(call: Call) -> web.StreamResponse:
    """Refuse in the words of a dockerd that is not experimental."""
    raise Unimplemented(
        "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to "
        "enable it.",
        hint="Ketch has no checkpoints",
    )


ROUTES = (
    ("POST", "/build", build),
    ("POST", "/build/cancel", cancel),
    ("POST", "/build/prune", prune),
    ("POST", "/ketch/build", own),
    ("POST", "/ketch/descriptors", descriptors),
    ("GET", "/ketch/builds", list_),
    ("GET", "/ketch/builds/{ref}", inspect),
    ("GET", "/ketch/builds/{ref}/logs", logs),
    ("DELETE", "/ketch/builds/{ref}", forget),
    ("GET", "/containers/{id}/checkpoints", checkpoint),
    ("POST", "/containers/{id}/checkpoints", checkpoint),
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}", checkpoint),
)
