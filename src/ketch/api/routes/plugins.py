"""``/plugins``: there are none, and none can be installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.api import query
from ketch.api.wire import filters
from ketch.errors import InvalidArgument, NotFound, UnclassifiedArgument, Unimplemented
from ketch.notation import integers
from ketch.oci import reference

if TYPE_CHECKING:
    from aiohttp import web

    from ketch.api.call import Call

_KNOWN = frozenset(("capability", "enabled"))


async def list_(call: Call) -> web.StreamResponse:
    """An empty list."""
    chosen = query.filters(call.query)
    filters.check(chosen, _KNOWN)
    for value in chosen.get("enabled", ()):
        filters.boolean("enabled", value)
    return call.json([])


async def missing(call: Call) -> web.StreamResponse:
    """Answer 404: `docker inspect NAME` asks here last, and reports that there is no such object."""
    raise NotFound(f'plugin "{call.path["name"]}" not found')


async def enable(call: Call) -> web.StreamResponse:
    """Answer 404, unless the request itself is wrong."""
    timeout = call.query.get("timeout", "")
    try:
        integers.signed(timeout)
    except integers.NotAnIntegerError as e:
        raise UnclassifiedArgument(f'strconv.Atoi: parsing "{timeout}": {e}') from e
    return await missing(call)


async def set_(call: Call) -> web.StreamResponse:
    """Answer 404, unless the request itself is wrong."""
    await call.body(list[str], optional=True)
    return await missing(call)


async def upgrade(call: Call) -> web.StreamResponse:
    """Answer 404, unless the request itself is wrong."""
    _reference(call.query.get("remote", ""))
    raise NotFound(f'plugin "{reference.parse(call.path["name"]).familiar}" not found')


async def install(call: Call) -> web.StreamResponse:
    """Refuse to fetch a plugin, or to ask what it may do."""
    _reference(call.query.get("remote", ""))
    raise Unimplemented(f"plugins ({call.request.path}): Ketch has none, and installs none")


async def create(call: Call) -> web.StreamResponse:
    """Refuse to make a plugin."""
    name = call.query.get("name", "")
    _reference(name, f"failed to parse reference {name}: ")
    raise Unimplemented(f"plugins ({call.request.path}): Ketch has none, and makes none")


def _reference(text: str, about: str = "") -> None:
    try:
        reference.parse(text)
    except InvalidArgument as e:
        raise UnclassifiedArgument(about + e.message) from e


ROUTES = (
    ("GET", "/plugins", list_),
    ("GET", "/plugins/privileges", install),
    ("GET", "/plugins/{name:path}/json", missing),
    ("POST", "/plugins/pull", install),
    ("POST", "/plugins/create", create),
    ("POST", "/plugins/{name:path}/enable", enable),
    ("POST", "/plugins/{name:path}/disable", missing),
    ("POST", "/plugins/{name:path}/set", set_),
    ("POST", "/plugins/{name:path}/push", missing),
    ("POST", "/plugins/{name:path}/upgrade", upgrade),
    ("DELETE", "/plugins/{name:path}", missing),
)
