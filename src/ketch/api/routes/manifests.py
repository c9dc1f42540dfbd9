"""``/ketch/manifests``: the endpoints of ``ketch manifest`` (Docker's client needs no daemon for it)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.api.errors import from_registry
from ketch.api.platforms import SentPlatform
from ketch.remote.credentials import Credentials, from_header

if TYPE_CHECKING:
    from aiohttp import web

    from ketch.api.call import Call


class _Create(msgspec.Struct, rename="pascal", kw_only=True):
    name: str
    manifests: list[str] = []
    amend: bool = False


class _Annotate(msgspec.Struct, rename="pascal", kw_only=True):
    name: str
    manifest: str
    platform: SentPlatform = msgspec.field(default_factory=SentPlatform)


class _Push(msgspec.Struct, rename="pascal", kw_only=True):
    name: str
    purge: bool = False


def _credentials(call: Call) -> Credentials | None:
    return from_header(call.request.headers.get("X-Registry-Auth"))


async def inspect(call: Call) -> web.StreamResponse:
    """A manifest from its registry."""
    with from_registry():
        return call.json(await call.engine.manifests.inspect(call.path["name"], _credentials(call)))


async def local(call: Call) -> web.StreamResponse:
    """A draft of an index."""
    return call.json(call.engine.manifests.get(call.path["name"]))


async def create(call: Call) -> web.StreamResponse:
    """Create a draft of an index, or add to it."""
    body: _Create = await call.body(_Create)
    with from_registry():
        made = await call.engine.manifests.create(body.name, body.manifests, body.amend, _credentials(call))
    return call.json({"Name": made.name}, 201)


async def annotate(call: Call) -> web.StreamResponse:
    """Set the platform of one of its images."""
    body: _Annotate = await call.body(_Annotate)
    return call.json(await call.engine.manifests.annotate(body.name, body.manifest, msgspec.to_builtins(body.platform)))


async def push(call: Call) -> web.StreamResponse:
    """Push the index to its registry."""
    body: _Push = await call.body(_Push)
    with from_registry():
        return call.json({"Digest": await call.engine.manifests.push(body.name, body.purge, _credentials(call))})


async def remove(call: Call) -> web.StreamResponse:
    """Remove the draft."""
    call.engine.manifests.remove(call.path["name"])
    return call.empty()


ROUTES = (
    ("GET", "/ketch/manifests/{name:path}/local", local),
    ("GET", "/ketch/manifests/{name:path}/json", inspect),
    ("POST", "/ketch/manifests/create", create),
    ("POST", "/ketch/manifests/annotate", annotate),
    ("POST", "/ketch/manifests/push", push),
    ("DELETE", "/ketch/manifests/{name:path}", remove),
)
