"""The ``/containers`` endpoints, except those of execs."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch import failpoints
from ketch.api import dry_run, jsontext, query, streams, versions
from ketch.api.call import SESSION
from ketch.api.errors import description, prefixed
from ketch.api.wire import container_filters, filters, prunes, stats
from ketch.api.wire import containers as wire
from ketch.api.wire.container_requests import CreateBody, UpdateBody
from ketch.engine.aio.streams import AttachOptions, LogOptions
from ketch.engine.model import pending
from ketch.errors import InvalidArgument, KetchError, NotFound, Unavailable

if TYPE_CHECKING:
    from aiohttp import web

    from ketch.api.call import Call
    from ketch.engine.model.records import Container
    from ketch.engine.model.requests import NewContainer


_PRUNE = frozenset(("label", "label!", "until"))


async def create(call: Call) -> web.StreamResponse:
    """Make a container."""
    wanted, of_version = await _wanted(call)
    container, warnings = await _made(call, wanted)
    return call.json({"Id": container.id, "Warnings": [*warnings, *of_version]}, 201)


async def _wanted(call: Call) -> tuple[NewContainer, list[str]]:
    """The container that is asked for, with warnings."""
    body: CreateBody = await call.body(CreateBody)
    if not body.says_anything and b'"image"' not in (await call.request.read()).lower():
        raise InvalidArgument("config cannot be empty in order to create a container")
    of_version = versions.read_create(body, call.version)
    wanted = body.request(
        call.query.get("name") or None,
        call.query.get("platform") or None,
        below_read_only=versions.below_is_read_only(call.version),
    )
    return wanted, of_version


async def _made(call: Call, wanted: NewContainer, *, runs: bool = False) -> tuple[Container, list[str]]:
    """A new container, of the session that the request names, if any; ``runs``: which is started at once."""
    if session := call.request.headers.get(SESSION):
        return await call.engine.sessions.create(session, wanted, runs=runs)
    return await call.engine.containers.create(wanted)


async def run(call: Call) -> web.StreamResponse:
    """Make and start a container, which is this connection's and ends with it."""
    wanted, _ = await _wanted(call)
    streams.check_serves_alone(call.request, tty=wanted.config.tty)
    container, _ = await _made(call, wanted, runs=True)
    try:
        stream = streams.serve_alone(call.request, f"Ketch-Container: {container.id}")
    except Unavailable:  # it has gone already
        await call.engine.containers.remove(container.id, force=True, volumes=True)
        raise
    await call.engine.oneshots.run(container, stream, description)
    return streams.Gone()


async def make_and_start(call: Call) -> web.StreamResponse:
    """Make and start a container, which stays; nothing of it does when either fails, or the client has gone."""
    wanted, of_version = await _wanted(call)
    container, warnings = await _made(call, wanted, runs=True)
    await call.engine.oneshots.start(container, lambda: streams.check_is_there(call.request))
    return call.json({"Id": container.id, "Warnings": [*warnings, *of_version]}, 201)


async def list_(call: Call) -> web.StreamResponse:
    """The rows of ``ps``."""
    chosen = query.filters(call.query)
    everything = query.flag(call.query, "all") or "status" in chosen
    limit = query.number(call.query, "limit", 0) or 0
    predicate = container_filters.predicate(call.engine, chosen)
    rows = [c for c in call.engine.containers.list() if (everything or limit > 0 or c.state.up) and predicate(c)]
    if limit > 0:
        rows = rows[:limit]
    with_size = query.flag(call.query, "size")
    answer = []
    for container in rows:
        sizes = await call.engine.containers.sizes(container.id) if with_size else None
        answer.append(versions.shown_row(wire.row(call.engine, container, sizes), call.version))
    return call.json(answer)


async def inspect(call: Call) -> web.StreamResponse:
    """Everything about one container."""
    container = call.engine.containers.get(call.path["id"])
    await call.engine.containers.recorded(container)
    sizes = await call.engine.containers.sizes(container.id) if query.flag(call.query, "size") else None
    return call.json(versions.shown_container(wire.inspect(call.engine, container, sizes), call.version))


async def start(call: Call) -> web.StreamResponse:
    """Start a container (InvalidArgument for a configuration in the body)."""
    if len((await call.request.read()).strip()) > len("null"):
        raise InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    await call.engine.containers.start(call.path["id"], call.query.get("detachKeys", ""))
    return call.empty()


class Step(Struct, rename="pascal"):
    """A place that a start passed; ``at`` in ns since it was asked for."""

    step: str
    at: int


class TimedStart(Struct, rename="pascal"):
    """The steps of a start, and its time until the answer in ns."""

    steps: list[Step]
    took: int


async def start_timed(call: Call) -> web.StreamResponse:
    """Start a container, and tell what of it took how long."""
    begin, passages = time.monotonic_ns(), failpoints.follow()
    try:
        await call.engine.containers.start(call.path["id"])
    finally:
        failpoints.follow_no_more()
    steps = [Step(name, at - begin) for name, at in sorted(passages, key=lambda passage: passage[1])]
    return call.json(TimedStart(steps, time.monotonic_ns() - begin))


async def stop(call: Call) -> web.StreamResponse:
    """Stop a container."""
    container, timeout = call.engine.containers.get(call.path["id"]), query.number(call.query, "t")
    with prefixed(f"cannot stop container: {call.path['id']}: ", unclassified=True):
        await call.engine.containers.stop(container.id, timeout, call.query.get("signal") or None)
    return call.empty()


async def restart(call: Call) -> web.StreamResponse:
    """Stop and start a container."""
    container, timeout = call.engine.containers.get(call.path["id"]), query.number(call.query, "t")
    with prefixed(f"Cannot restart container {call.path['id']}: ", unclassified=True):
        await call.engine.containers.restart(container.id, timeout, call.query.get("signal") or None)
    return call.empty()


async def kill(call: Call) -> web.StreamResponse:
    """Send a signal."""
    with prefixed(f"cannot kill container: {call.path['id']}: "):
        await call.engine.containers.kill(call.path["id"], call.query.get("signal") or "KILL")
    return call.empty()


async def pause(call: Call) -> web.StreamResponse:
    """Freeze the container's processes."""
    await call.engine.containers.pause(call.path["id"])
    return call.empty()


async def unpause(call: Call) -> web.StreamResponse:
    """Thaw the container's processes."""
    await call.engine.containers.unpause(call.path["id"])
    return call.empty()


async def rename(call: Call) -> web.StreamResponse:
    """Rename a container."""
    await call.engine.containers.rename(call.path["id"], call.query.get("name", ""))
    return call.empty()


async def update(call: Call) -> web.StreamResponse:
    """New limits or another restart policy at once; Ketch's own ``Changes`` at the next start."""
    body: UpdateBody = await call.body(UpdateBody, optional=True)
    versions.read_update(body, call.version)
    warnings, container = await call.engine.containers.update(call.path["id"], body.update())
    waiting = pending.shown(container)
    return call.json({"Warnings": warnings or None} | ({"Pending": waiting} if waiting else {}))


async def remove(call: Call) -> web.StreamResponse:
    """Remove a container; with ``dry-run`` say what that would do."""
    only_shown, without = await dry_run.wanted(call)
    if only_shown:
        force, volumes = query.flag(call.query, "force"), query.flag(call.query, "v")
        ref = call.path["id"]
        found = await call.engine.prunes.container(ref, force=force, volumes=volumes, without=without)
        return call.json(prunes.container(found))
    await call.engine.containers.remove(
        call.path["id"],
        force=query.flag(call.query, "force"),
        volumes=query.flag(call.query, "v"),
        link=query.flag(call.query, "link"),
    )
    return call.empty()


async def wait(call: Call) -> web.StreamResponse:
    """Wait for the exit code; headers are sent as soon as the wait is registered."""
    waiter = call.engine.containers.wait(call.path["id"], call.query.get("condition", ""))
    response = await call.stream()
    transport = call.request.transport
    if not waiter.done and transport is not None:
        call.engine.containers.hold_wait(call.path["id"], transport.get_extra_info("socket").fileno())
    code, error = await waiter.result()
    answer: dict[str, object] = {"StatusCode": code}
    if error:
        answer["Error"] = {"Message": error}
    await response.write(jsontext.encode(answer) + b"\n")
    return response


async def attach(call: Call) -> web.StreamResponse:
    """Join the container's streams; the connection is hijacked."""
    options = AttachOptions(
        stream=query.flag(call.query, "stream"),
        logs=query.flag(call.query, "logs"),
        stdin=query.flag(call.query, "stdin"),
        stdout=query.flag(call.query, "stdout"),
        stderr=query.flag(call.query, "stderr"),
        detach_keys=call.query.get("detachKeys", ""),
    )
    container = await call.engine.containers.check_attach(call.path["id"], options.detach_keys)
    stream = streams.hijack(call.request, content_type(call, container.config.tty))
    if container.state.running:  # else its start follows as soon as the head is read, and must find us
        await streams.head_taken(stream)
        if not container.state.running and not options.logs:  # its end came first: nobody shall wait for another start
            stream.close()
            return streams.Gone()
    await call.engine.containers.attach(container.id, options, stream)
    return streams.Gone()


def content_type(call: Call, tty: bool) -> str:
    """Since API 1.42 a multiplexed stream has a media type of its own."""
    return streams.MULTIPLEXED if not tty and call.version >= (1, 42) else streams.RAW


async def resize(call: Call) -> web.StreamResponse:
    """The terminal's new size."""
    rows, cols = query.size(call.query)
    await call.engine.containers.resize(call.path["id"], rows, cols)
    return call.empty(200)


async def logs(call: Call) -> web.StreamResponse:
    """The container's logged output, and with ``follow`` what is added to it."""
    options = LogOptions(
        stdout=query.flag(call.query, "stdout"),
        stderr=query.flag(call.query, "stderr"),
        since_ns=query.timestamp(call.query, "since"),
        until_ns=query.timestamp(call.query, "until"),
        tail=query.tail(call.query),
        timestamps=query.flag(call.query, "timestamps"),
        details=query.flag(call.query, "details"),
        follow=query.flag(call.query, "follow"),
    )
    if not (options.stdout or options.stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    container = call.engine.containers.get(call.path["id"])
    async with aclosing(await call.engine.containers.logs(container.id, options)) as chunks:
        response = await call.stream(content_type(call, container.config.tty))
        async with streams.while_connected(call.request):
            async for chunk in chunks:
                await response.write(chunk)
    return response


async def top(call: Call) -> web.StreamResponse:
    """The container's processes."""
    return call.json(await call.engine.containers.top(call.path["id"], call.query.get("ps_args", "-ef")))


async def container_stats(call: Call) -> web.StreamResponse:
    """Counters: one reading a second, or (``stream=0``) a single one with its predecessor."""
    container = call.engine.containers.get(call.path["id"])
    follow, one_shot = query.flag(call.query, "stream", True), query.flag(call.query, "one-shot")
    if not container.state.running and not follow:
        return call.json(stats.empty(container))
    response = await call.stream()
    previous = None
    if not one_shot and not follow:
        previous = await call.engine.containers.stats_sample(container.id)
        await asyncio.sleep(1)
    while True:
        try:
            current = await call.engine.containers.stats_sample(container.id)
        except NotFound:
            break
        except KetchError:  # it stopped: Docker sends empty readings until it runs again or is removed
            current = None
        answer = (
            stats.answer(container, current, previous, one_shot=one_shot and not follow)
            if current
            else stats.empty(container)
        )
        await response.write(jsontext.encode(answer) + b"\n")
        if not follow:
            break
        previous = current
        await asyncio.sleep(1)
    return response


async def prune(call: Call) -> web.StreamResponse:
    """Remove every container that does not run."""
    matches = filters.prune_predicate(query.filters(call.query), _PRUNE)
    only_shown, _ = await dry_run.wanted(call)
    done = await call.engine.prunes.containers(matches, dry_run=only_shown)
    return call.json(prunes.containers(done, dry_run=only_shown))


ROUTES = (
    ("POST", "/containers/create", create),
    ("POST", "/ketch/run", run),
    ("POST", "/ketch/start", make_and_start),
    ("POST", "/containers/prune", prune),
    ("GET", "/containers/json", list_),
    ("GET", "/containers/{id}/json", inspect),
    ("POST", "/containers/{id}/start", start),
    ("POST", "/ketch/containers/{id}/start", start_timed),
    ("POST", "/containers/{id}/stop", stop),
    ("POST", "/containers/{id}/restart", restart),
    ("POST", "/containers/{id}/kill", kill),
    ("POST", "/containers/{id}/pause", pause),
    ("POST", "/containers/{id}/unpause", unpause),
    ("POST", "/containers/{id}/rename", rename),
    ("POST", "/containers/{id}/update", update),
    ("POST", "/containers/{id}/wait", wait),
    ("POST", "/containers/{id}/attach", attach),
    ("POST", "/containers/{id}/resize", resize),
    ("GET", "/containers/{id}/logs", logs),
    ("GET", "/containers/{id}/top", top),
    ("GET", "/containers/{id}/stats", container_stats),
    ("DELETE", "/containers/{id}", remove),
)
