"""``/containers/{id}/exec`` and ``/exec/{id}/…``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ketch.api import query, streams
from ketch.api.errors import description
from ketch.api.routes.containers import content_type
from ketch.api.wire import execs as wire
from ketch.errors import KetchError, Unavailable
from ketch.notation import stream_frames

if TYPE_CHECKING:
    from aiohttp import web

    from ketch.api.call import Call


async def create(call: Call) -> web.StreamResponse:
    """Register a command to run in a container."""
    body: wire.NewExec = await call.body(wire.NewExec, optional=True)
    config = body.config()
    await call.engine.execs.check_user(call.path["id"], config)
    return call.json({"Id": call.engine.execs.create(call.path["id"], config).id}, 201)


async def run(call: Call) -> web.StreamResponse:
    """Register and run it, with its streams on this connection, with which it ends."""
    body: wire.NewExec = await call.body(wire.NewExec)
    config = body.config()
    streams.check_serves_alone(call.request, tty=config.tty)
    await call.engine.execs.check_user(call.path["id"], config)
    exec_ = call.engine.execs.create(call.path["id"], config)
    await call.engine.execs.check_startable(exec_.id)
    stream = streams.serve_alone(call.request, f"Ketch-Exec: {exec_.id}")
    await call.engine.oneshots.exec(exec_, stream, description)
    return streams.Gone()


async def start(call: Call) -> web.StreamResponse:
    """Run it: detached, or with its streams on this connection."""
    body: wire.StartBody = await call.body(wire.StartBody, optional=True)
    exec_ = call.engine.execs.get(call.path["id"])
    console_size = body.console_size if body.tty else None
    if body.detach:
        await call.engine.execs.start(exec_.id, detach=True, console_size=console_size)
        return call.empty(200)
    await call.engine.execs.check_startable(exec_.id)
    stream = streams.hijack(call.request, content_type(call, body.tty))
    try:
        await streams.head_taken(stream)
        await call.engine.execs.start(exec_.id, tty=body.tty, console_size=console_size, stream=stream)
    except KetchError as e:
        # The answer has begun: the client reads the reason where the command's own output would be.
        text = f"{e.message}\r\n".encode()
        with contextlib.suppress(Unavailable):  # the client left: there is nobody to tell
            await stream.write(text if body.tty else stream_frames.frame(stream_frames.STDOUT, text))
    finally:
        stream.close()
    return streams.Gone()


async def resize(call: Call) -> web.StreamResponse:
    """The terminal's new size."""
    rows, cols = query.size(call.query)
    await call.engine.execs.resize(call.path["id"], rows, cols)
    return call.empty(200)


async def kill(call: Call) -> web.StreamResponse:
    """Send it a signal; KILL to all that it has started, too."""
    await call.engine.execs.kill(call.path["id"], call.query.get("signal") or "KILL")
    return call.empty()


async def inspect(call: Call) -> web.StreamResponse:
    """State and exit code."""
    return call.json(wire.inspect(call.engine.execs.get(call.path["id"])))


ROUTES = (
    ("POST", "/containers/{id}/exec", create),
    ("POST", "/ketch/containers/{id}/exec", run),
    ("POST", "/exec/{id}/start", start),
    ("POST", "/exec/{id}/resize", resize),
    ("GET", "/exec/{id}/json", inspect),
    ("POST", "/ketch/exec/{id}/kill", kill),
)
