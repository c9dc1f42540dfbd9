"""``/swarm``, ``/nodes``, ``/services``, ``/tasks``, ``/secrets``, ``/configs``: a machine that is in no swarm.

The answers are those of a dockerd outside a swarm; only what would make or join one is not there.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

import msgspec

from ketch.api import query
from ketch.errors import InvalidArgument, Unavailable, UnclassifiedArgument, Unimplemented
from ketch.notation import integers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from ketch.api.call import Call

NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)


class _Spec(msgspec.Struct):
    """A body that is read only to be refused if it is none."""

    GO_NAME: ClassVar[str] = "swarm.Spec"


async def look(call: Call) -> web.StreamResponse:
    """Refuse to show what managers know."""
    query.filters(call.query)
    raise Unavailable(NO_MANAGER)


async def change(call: Call) -> web.StreamResponse:
    """Refuse to make or unlock what managers keep."""
    await call.body(_Spec, optional=True)
    raise Unavailable(NO_MANAGER)


async def update(call: Call, what: str) -> web.StreamResponse:
    """Refuse to change an object of a swarm, of which ``version`` is the number of the last change."""
    await call.body(_Spec, optional=True)
    text = call.query.get("version", "")
    try:
        integers.unsigned(text)
    except integers.NotAnIntegerError as e:
        why = "" if what in ("secret", "config") else f" '{text}': strconv.ParseUint: parsing \"{text}\": {e}"
        raise InvalidArgument(f"invalid {what} version{why}") from e
    raise Unavailable(NO_MANAGER)


async def logs(call: Call) -> web.StreamResponse:
    """Refuse the output of a service or a task."""
    if not (query.flag(call.query, "stdout") or query.flag(call.query, "stderr")):
        raise UnclassifiedArgument("Bad parameters: you must choose at least one stream")
    raise Unavailable(NO_MANAGER)


async def begin(call: Call) -> web.StreamResponse:
    """Refuse to make a swarm, or to join one."""
    await call.body(_Spec, optional=True)
    raise Unimplemented(f"swarm mode ({call.request.path}): Ketch runs containers on one machine")


async def leave(call: Call) -> web.StreamResponse:
    """Refuse to leave what this machine is not in."""
    raise Unavailable("This node is not part of a swarm")


async def update_volume(call: Call) -> web.StreamResponse:
    """Refuse to change a volume: only those of clusters can be changed."""
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


def _routes() -> tuple[tuple[str, str, Callable[[Call], Awaitable[web.StreamResponse]]], ...]:
    kinds = ("node", "service", "secret", "config")
    return (
        ("GET", "/swarm", look),
        ("GET", "/swarm/unlockkey", look),
        ("POST", "/swarm/init", begin),
        ("POST", "/swarm/join", begin),
        ("POST", "/swarm/leave", leave),
        ("POST", "/swarm/unlock", change),
        ("POST", "/swarm/update", partial(update, what="swarm")),
        *(("GET", f"/{kind}s", look) for kind in (*kinds, "task")),
        *(("GET", f"/{kind}s/{{id}}", look) for kind in (*kinds, "task")),
        *(("DELETE", f"/{kind}s/{{id}}", look) for kind in kinds),
        *(("POST", f"/{kind}s/create", change) for kind in kinds if kind != "node"),
        *(("POST", f"/{kind}s/{{id}}/update", partial(update, what=kind)) for kind in kinds),
        ("GET", "/services/{id}/logs", logs),
        ("GET", "/tasks/{id}/logs", logs),
        ("PUT", "/volumes/{name}", update_volume),
    )


ROUTES = _routes()
