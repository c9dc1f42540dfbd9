"""``GET /ketch/stats``: resource usage of many containers in one stream (Docker has a stream for each)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from ketch.api import jsontext, query
from ketch.api.wire import container_filters
from ketch.engine.model.usage import Usage  # noqa: TC001 (msgspec reads the annotations)
from ketch.errors import InvalidArgument
from ketch.notation import times

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from ketch.api.call import Call
    from ketch.engine.model.records import Container

    Containers = list[Container]

MIN_INTERVAL_S, MAX_INTERVAL_S = 0.1, 3600.0


class Line(msgspec.Struct):
    """One sample of all containers; ``seconds`` since the previous one (0: this is the first)."""

    read: str
    seconds: float
    containers: list[Usage]


async def stream(call: Call) -> web.StreamResponse:
    """A line at once and one every ``interval`` seconds; with ``stream=0`` one line after an interval."""
    follow = query.flag(call.query, "stream", True)
    pause, chosen = interval(call.query.get("interval")), _chooser(call)
    sampler = call.engine.containers.sampler()
    response = await call.stream("application/x-ndjson")
    first = last = time.monotonic()
    ticks = 0
    while True:
        usages = await sampler.sample(chosen())
        now = time.monotonic()
        if follow or ticks:
            line = Line(times.rfc3339_or_never(time.time_ns()), round(now - last, 3) if ticks else 0.0, usages)
            await response.write(jsontext.encode(line) + b"\n")
            if not follow:
                return response
        last = now
        ticks = max(ticks + 1, int((now - first) / pause))  # a pass that was late does not make the next ones late
        await asyncio.sleep(max(0.0, first + ticks * pause - time.monotonic()))


def interval(text: str | None) -> float:
    """Seconds between two lines (InvalidArgument)."""
    try:
        seconds = float(text or 1)
    except ValueError:
        seconds = -1.0
    if not MIN_INTERVAL_S <= seconds <= MAX_INTERVAL_S:
        raise InvalidArgument(
            f"invalid interval: {text}", hint=f"seconds, from {MIN_INTERVAL_S:g} to {MAX_INTERVAL_S:g}"
        )
    return seconds


def _chooser(call: Call) -> Callable[[], Containers]:
    """A function for each line's containers: the named ones that exist, or all running that pass the filters."""
    service = call.engine.containers
    if named := call.query.getall("container", []):
        ids = [service.get(ref).id for ref in named]
        return lambda: service.existing(ids)
    everything = query.flag(call.query, "all")
    keep = container_filters.predicate(call.engine, query.filters(call.query))
    return lambda: [c for c in service.list() if (everything or c.state.running) and keep(c)]


ROUTES = (("GET", "/ketch/stats", stream),)
