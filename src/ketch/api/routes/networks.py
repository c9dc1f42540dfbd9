"""The ``/networks`` endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.api import dry_run, query, versions
from ketch.api.wire import filters, prunes
from ketch.api.wire.networks import ConnectBody, DisconnectBody, NewNetwork, endpoint, predicate, wire
from ketch.errors import NotFound

if TYPE_CHECKING:
    from aiohttp import web

    from ketch.api.call import Call

_PRUNE = frozenset(("label", "label!", "until"))


async def list_(call: Call) -> web.StreamResponse:
    """All networks that match."""
    keep = predicate(call.engine, query.filters(call.query))
    detailed = versions.lists_members(call.version)
    return call.json([wire(call.engine, n, detailed=detailed) for n in call.engine.networks.list() if keep(n)])


async def inspect(call: Call) -> web.StreamResponse:
    """One network and the containers on it."""
    query.strict_flag(call.query, "verbose")
    if call.query.get("scope", "") not in ("", "local"):
        raise NotFound(f"network {call.path['id']} not found", hint="all networks here are of the scope `local`")
    return call.json(wire(call.engine, call.engine.networks.get(call.path["id"]), detailed=True))


async def create(call: Call) -> web.StreamResponse:
    """Make a network."""
    body: NewNetwork = await call.body(NewNetwork, optional=True)
    versions.read_network(body, call.version)
    record = await call.engine.networks.create(body.record())
    return call.json({"Id": record.id, "Warning": ""}, 201)


async def remove(call: Call) -> web.StreamResponse:
    """Remove a network without containers."""
    await call.engine.networks.remove(call.path["id"])
    return call.empty()


async def connect(call: Call) -> web.StreamResponse:
    """Connect a container to a network."""
    body: ConnectBody = await call.body(ConnectBody, optional=True)
    await call.engine.networks.connect(call.path["id"], body.container, endpoint(body.endpoint_config))
    return call.empty(200)


async def disconnect(call: Call) -> web.StreamResponse:
    """Disconnect a container from a network."""
    body: DisconnectBody = await call.body(DisconnectBody, optional=True)
    await call.engine.networks.disconnect(call.path["id"], body.container, force=body.force)
    return call.empty(200)


async def prune(call: Call) -> web.StreamResponse:
    """Remove the networks that no container refers to."""
    chosen = query.filters(call.query)
    matches = filters.prune_predicate(chosen, _PRUNE)
    only_shown, without = await dry_run.wanted(call)
    done = await call.engine.prunes.networks(matches, dry_run=only_shown, without=without)
    return call.json(prunes.networks(done, dry_run=only_shown))


async def repair(call: Call) -> web.StreamResponse:
    """Restore the parts of networks that other programs removed."""
    done = await call.engine.networks.repair()
    return call.json({"Done": done, "Warnings": await call.engine.networks.blockers()})


ROUTES = (
    ("GET", "/networks", list_),
    ("GET", "/networks/", list_),
    ("POST", "/networks/create", create),
    ("POST", "/networks/prune", prune),
    ("GET", "/networks/{id:path}", inspect),
    ("DELETE", "/networks/{id:path}", remove),
    ("POST", "/networks/{id:path}/connect", connect),
    ("POST", "/networks/{id:path}/disconnect", disconnect),
    ("POST", "/ketch/networks/repair", repair),
)
