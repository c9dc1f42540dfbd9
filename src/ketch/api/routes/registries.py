"""``/auth``, ``/distribution`` and ``/images/search``: requests to registries that transfer no image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.api import query
from ketch.api.errors import from_registry
from ketch.errors import InvalidArgument, UnclassifiedArgument
from ketch.remote.credentials import Credentials, completed, from_header

if TYPE_CHECKING:
    from aiohttp import web

    from ketch.api.call import Call


async def auth(call: Call) -> web.StreamResponse:
    """Check credentials with their registry."""
    try:
        given: Credentials = await call.body(Credentials)
    except InvalidArgument as e:
        words = e.message.removeprefix("invalid JSON: ")
        raise UnclassifiedArgument("EOF" if words.startswith("got EOF") else words) from e
    with from_registry():
        return call.json(await call.engine.registries.login(completed(given)))


async def distribution(call: Call) -> web.StreamResponse:
    """The descriptor and the platforms of a reference in its registry."""
    credentials = from_header(call.request.headers.get("X-Registry-Auth"))
    with from_registry():
        return call.json(await call.engine.registries.distribution(call.path["name"], credentials))


async def search(call: Call) -> web.StreamResponse:
    """Search a registry for images."""
    credentials = from_header(call.request.headers.get("X-Registry-Auth"))
    try:
        limit = query.number(call.query, "limit") or 0
    except UnclassifiedArgument as e:
        raise InvalidArgument(f"invalid limit specified: {e.message}") from e
    chosen = query.filters(call.query)
    with from_registry():
        return call.json(await call.engine.registries.search(call.query.get("term", ""), limit, chosen, credentials))


ROUTES = (
    ("POST", "/auth", auth),
    ("GET", "/distribution/{name:path}/json", distribution),
    ("GET", "/images/search", search),
)
