"""The ``/volumes`` endpoints."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from ketch import expressions
from ketch.api import dry_run, query, versions
from ketch.api.errors import prefixed
from ketch.api.routes.images import progress
from ketch.api.routes.swarm import NO_MANAGER
from ketch.api.wire import filters, prunes
from ketch.api.wire.volumes import NewVolume
from ketch.api.wire.volumes import wire as wire_volume
from ketch.errors import InvalidArgument, Unavailable
from ketch.notation import booleans, digits
from ketch.storage.archive.owners import Shifted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiohttp import web

    from ketch.api.call import Call
    from ketch.images.progress import ProgressItem

_PRUNE = frozenset(("all", "label", "label!"))
_CHUNK = 1 << 18
_LARGEST_ID = (1 << 32) - 2
_KNOWN = frozenset(("dangling", "driver", "label", "name"))


async def list_(call: Call) -> web.StreamResponse:
    """All volumes that match."""
    with prefixed("error reading volume filters: "):
        chosen = query.filters(call.query)
    filters.check(chosen, _KNOWN)
    dangling = filters.booleans_of(chosen, "dangling")
    names = list(filter(expressions.is_valid, chosen.get("name", ())))
    patterns = expressions.Expressions(names)
    rows = []
    for volume in call.engine.volumes.list():
        used = bool(call.engine.volumes.used_by(volume.name))
        if dangling is not None and dangling == used:
            continue
        if "name" in chosen and volume.name not in chosen["name"] and not patterns.fit(volume.name):
            continue
        if "driver" in chosen and volume.driver not in chosen["driver"]:
            continue
        if filters.has_labels(volume.labels, chosen.get("label", [])):
            rows.append(wire_volume(volume))
    return call.json({"Volumes": rows, "Warnings": None})


async def create(call: Call) -> web.StreamResponse:
    """Make a volume."""
    body: NewVolume = await call.body(NewVolume, optional=True)
    if body.cluster_volume_spec is not None:
        raise Unavailable(NO_MANAGER)
    known = call.engine.volumes.has(body.name)
    volume = call.engine.volumes.create(body.name, driver=body.driver, labels=body.labels, options=body.driver_opts)
    await call.engine.volumes.flush()
    if not known:
        call.engine.events.publish("volume", "create", volume.name, {"driver": volume.driver})
    return call.json(wire_volume(volume), 201)


async def inspect(call: Call) -> web.StreamResponse:
    """One volume."""
    return call.json(wire_volume(call.engine.volumes.get(call.path["name"])))


async def remove(call: Call) -> web.StreamResponse:
    """Delete a volume and its data."""
    await call.engine.volumes.remove(call.path["name"], force=query.flag(call.query, "force"))
    call.engine.events.publish("volume", "destroy", call.path["name"], {"driver": "local"})
    return call.empty()


async def prune(call: Call) -> web.StreamResponse:
    """Delete the volumes that no container uses: the anonymous ones, with ``all`` the named ones, too."""
    chosen = query.filters(call.query)
    matches = filters.prune_predicate(chosen, _PRUNE)
    everything = _all(chosen["all"]) if chosen.get("all") else versions.prunes_named_volumes(call.version)
    only_shown, without = await dry_run.wanted(call)
    done = await call.engine.prunes.volumes(matches, everything=everything, dry_run=only_shown, without=without)
    return call.json(prunes.volumes(done, dry_run=only_shown))


def _all(values: list[str]) -> bool:
    if len(values) > 1:
        raise InvalidArgument(f"invalid filter 'all=[{' '.join(sorted(values))}]': only one value is expected")
    try:
        return booleans.strict(values[0])
    except booleans.NotABooleanError as e:
        raise InvalidArgument(f"invalid filter 'all': {e}") from e


async def backup(call: Call) -> web.StreamResponse:
    """A volume's content as a tar stream."""
    async with aclosing(call.engine.backups.backup(call.path["name"])) as chunks:
        first = await anext(chunks)  # what hinders a backup has a status of its own
        response = await call.stream("application/x-tar")
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
    return response


async def restore(call: Call) -> web.StreamResponse:
    """Fill a volume from a tar archive in the request's body."""
    name = call.path["name"]
    known = call.engine.volumes.has(name)
    body = call.request.content.iter_chunked(_CHUNK)
    volume = await call.engine.backups.restore(name, body, force=query.flag(call.query, "force"))
    if not known:
        await call.engine.volumes.flush()
        call.engine.events.publish("volume", "create", name, {"driver": volume.driver})
    return call.json(wire_volume(volume))


async def copy(call: Call) -> web.StreamResponse:
    """Fill an empty volume with the files of another one (``from``); the answer is progress, as of a pull.

    ``owners=UID:GID:COUNT``: the files are those of a user namespace which has these ids of the machine from 0 on, and
    the copies get the owners inside of it.
    """
    name, source = call.path["name"], call.query.get("from", "")
    return await progress(call, _copied(call.engine.backups.copy(name, source, _owners(call))))


async def _copied(sizes: AsyncGenerator[int, None]) -> AsyncGenerator[ProgressItem, None]:
    async with aclosing(sizes):
        async for size in sizes:
            yield {"status": "Copying", "progressDetail": {"current": size}}


def _owners(call: Call) -> Shifted | None:
    text = call.query.get("owners", "")
    if not text:
        return None
    numbers = [number for part in text.split(":") if (number := digits.whole(part, _LARGEST_ID)) is not None]
    if len(numbers) != 3 or text.count(":") != 2:
        raise InvalidArgument(f"invalid owners `{text}`", hint="write UID:GID:COUNT")
    return Shifted(*numbers)


ROUTES = (
    ("GET", "/volumes", list_),
    ("POST", "/volumes/create", create),
    ("POST", "/volumes/prune", prune),
    ("GET", "/volumes/{name}", inspect),
    ("DELETE", "/volumes/{name}", remove),
    ("GET", "/ketch/volumes/{name}/archive", backup),
    ("PUT", "/ketch/volumes/{name}/archive", restore),
    ("POST", "/ketch/volumes/{name}/copy", copy),
)
