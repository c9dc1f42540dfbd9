"""The ``/volumes`` endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.api import query
from ketch.api.wire import filters
from ketch.api.wire.df import volume as wire_volume

if TYPE_CHECKING:
    from aiohttp import web

    from ketch.api.server import Call

_KNOWN = frozenset(("dangling", "driver", "label", "name"))


class CreateBody(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of ``create``."""

    name: str = ""
    driver: str = "local"
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None


async def list_(call: Call) -> web.StreamResponse:
    """All volumes that match."""
    chosen = query.filters(call.query)
    filters.check(chosen, _KNOWN)
    rows = []
    for volume in call.engine.volumes.list():
        used = bool(call.engine.volumes.used_by(volume.name))
        dangling = chosen.get("dangling")
        if dangling and (dangling[0].lower() in ("1", "true")) == used:
            continue
        if "name" in chosen and not any(n in volume.name for n in chosen["name"]):
            continue
        if "driver" in chosen and volume.driver not in chosen["driver"]:
            continue
        if filters.has_labels(volume.labels, chosen.get("label", [])):
            rows.append(wire_volume(call.engine, volume))
    return call.json({"Volumes": rows, "Warnings": None})


async def create(call: Call) -> web.StreamResponse:
    """Make a volume."""
    body: CreateBody = await call.body(CreateBody, optional=True)
    volume = call.engine.volumes.create(body.name, driver=body.driver, labels=body.labels, options=body.driver_opts)
    call.engine.events.publish("volume", "create", volume.name, {"driver": volume.driver})
    return call.json(wire_volume(call.engine, volume), 201)


async def inspect(call: Call) -> web.StreamResponse:
    """One volume."""
    return call.json(wire_volume(call.engine, call.engine.volumes.get(call.path["name"])))


async def remove(call: Call) -> web.StreamResponse:
    """Delete a volume and its data."""
    call.engine.volumes.remove(call.path["name"], force=query.flag(call.query, "force"))
    call.engine.events.publish("volume", "destroy", call.path["name"], {"driver": "local"})
    return call.empty()


async def prune(call: Call) -> web.StreamResponse:
    """Delete the volumes that no container uses: the anonymous ones, with ``all`` the named ones, too."""
    chosen = query.filters(call.query)
    matches = filters.prune_predicate(chosen)
    everything = any(v.lower() in ("1", "true") for v in chosen.get("all", ()))
    deleted = []
    for volume in call.engine.volumes.list():
        unused = (volume.anonymous or everything) and not call.engine.volumes.used_by(volume.name)
        if unused and matches(volume.created, volume.labels):
            call.engine.volumes.remove(volume.name)
            deleted.append(volume.name)
    return call.json({"VolumesDeleted": deleted, "SpaceReclaimed": 0})


ROUTES = (
    ("GET", "/volumes", list_),
    ("POST", "/volumes/create", create),
    ("POST", "/volumes/prune", prune),
    ("GET", "/volumes/{name}", inspect),
    ("DELETE", "/volumes/{name}", remove),
)
