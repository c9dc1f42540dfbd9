"""``/build``, ``/session``, ``/grpc``, and checkpoints: there is no builder yet, and no checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.api import query
from ketch.errors import InvalidArgument, UnclassifiedArgument, Unimplemented

if TYPE_CHECKING:
    from aiohttp import web

    from ketch.api.call import Call


async def build(call: Call) -> web.StreamResponse:
    """Refuse to build; ``version=2`` asks for BuildKit."""
    version = call.query.get("version") or "1"
    if version not in ("1", "2"):
        raise InvalidArgument(f'invalid version "{version}"')
    builder = "BuildKit" if version == "2" else "builder"
    raise Unimplemented(f"build image: this version of Ketch has no {builder}", hint="load or pull a built image")


async def cancel(call: Call) -> web.StreamResponse:
    """Nothing to cancel, which dockerd does not tell from a build that has ended."""
    if not call.query.get("id"):
        raise InvalidArgument("build ID not provided")
    return call.empty(200)


async def prune(call: Call) -> web.StreamResponse:
    """Answer that no build cache was removed: `docker system prune` asks last for it, and must not fail."""
    query.filters(call.query)
    call.engine.events.publish("builder", "prune", "", {"reclaimed": "0"})
    return call.json({"CachesDeleted": None, "SpaceReclaimed": 0})


async def grpc(call: Call) -> web.StreamResponse:
    """Refuse the calls of BuildKit's clients."""
    if "Upgrade" not in call.request.headers:
        raise UnclassifiedArgument("no upgrade proto in request")
    return await session(call)


async def session(call: Call) -> web.StreamResponse:
    """Refuse the connections of BuildKit's clients."""
    if "Upgrade" not in call.request.headers:
        raise InvalidArgument("no upgrade proto in request")
    raise Unimplemented(f"BuildKit ({call.request.path}): this version of Ketch has no builder")


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
    ("POST", "/session", session),
    ("POST", "/grpc", grpc),
    ("GET", "/containers/{id}/checkpoints", checkpoint),
    ("POST", "/containers/{id}/checkpoints", checkpoint),
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}", checkpoint),
)
