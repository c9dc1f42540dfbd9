"""The Engine API over HTTP: one handler, a table of routes, versions, and errors as JSON.

aiohttp's low-level server is used as it is: there is no per-request application, resource tree or
middleware, because a start of a container is six requests and each of them counts.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING

from aiohttp import web

from ketch.api import jsontext
from ketch.api.call import HEADERS, Call
from ketch.api.connection import LARGEST_JSON, Connection, Server
from ketch.api.errors import INTERNAL, body_of, message_of, status_of
from ketch.api.routes import (
    archive,
    attachws,
    containers,
    execs,
    images,
    manifests,
    networks,
    registries,
    system,
    usage,
    volumes,
)
from ketch.api.streams import Gone
from ketch.api.webpages import WebPages
from ketch.engine import os_errors
from ketch.engine.model.api_version import API_VERSION, MIN_API_VERSION
from ketch.errors import InvalidArgument, KetchError, NotFound, Unimplemented

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ketch.engine.engine import Engine

    Handler = Callable[[Call], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)
_VERSION = re.compile(r"/v(\d{1,9})(?:\.(\d{1,9}))?(/.*)\Z", re.ASCII)


class Routes:
    """(method, pattern) → handler; the first path segment chooses a short list of patterns."""

    def __init__(self) -> None:
        self._groups: dict[str, list[tuple[str, re.Pattern[str], Handler]]] = {}
        self._patterns: list[tuple[str, str]] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Add a route; ``{name}`` is one segment, ``{name:path}`` may contain slashes (image references do).

        So do containers' names: ``/web/db`` is a link's.
        """
        head = path.split("/")[1]
        if head == "containers":
            path = path.replace("{id}", "{id:path}")
        expression = re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", path)
        expression = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", expression)
        self._groups.setdefault(head, []).append((method, re.compile(expression + r"/?\Z"), handler))
        self._patterns.append((method, path))

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]]:
        """The handler and the path's parameters (NotFound, in Docker's words)."""
        group = path.split("/", 2)[1] if path.startswith("/") else ""  # `OPTIONS *` has none
        for known, pattern, handler in self._groups.get(group, ()):
            if (known == method or (method == "HEAD" and known == "GET")) and (match := pattern.match(path)):
                return handler, match.groupdict()
        raise NotFound("page not found")

    def all(self) -> list[tuple[str, str]]:
        """Every (method, path) that is served."""
        return list(self._patterns)


# Known to the specification, not there yet: these answer 501 with a sentence and never pretend.
NOT_YET = (
    ("POST", "/build"),
    ("POST", "/build/prune"),
    ("POST", "/build/cancel"),
    ("POST", "/session"),
    *(
        (method, f"/{what}{rest}")
        for what in ("plugins", "swarm", "nodes", "services", "tasks", "secrets", "configs")
        for method, rest in (("GET", ""), ("GET", "/{rest:path}"), ("POST", "/{rest:path}"), ("DELETE", "/{rest:path}"))
    ),
    ("PUT", "/volumes/{name}"),
)


async def _not_yet(call: Call) -> web.StreamResponse:
    raise Unimplemented(
        f"{call.request.method} {call.request.path}: this version of Ketch does not have it yet",
        hint="see the documentation for what it does have",
    )


class _TooOldError(InvalidArgument):
    """A version whose clients read errors as plain text, as those of Docker 1.11 did."""


def build_routes() -> Routes:
    """Every route of the API."""
    routes = Routes()
    # `registries` before `images`: a search is no image's name.
    for module in (
        archive,
        attachws,
        containers,
        execs,
        registries,
        manifests,
        images,
        networks,
        system,
        usage,
        volumes,
    ):
        for method, path, handler in module.ROUTES:
            routes.add(method, path, handler)
    for method, path in NOT_YET:
        routes.add(method, path, _not_yet)
    return routes


def parse_version(path: str) -> tuple[tuple[int, int], str]:
    """``/v1.43/info`` → ((1, 43), ``/info``); the newest version without a prefix (InvalidArgument outside ours)."""
    highest = tuple(int(n) for n in API_VERSION.split("."))
    lowest = tuple(int(n) for n in MIN_API_VERSION.split("."))
    match = _VERSION.match(path)
    if not match:
        return (highest[0], highest[1]), path
    version = (int(match[1]), int(match[2] or 0))
    text = match[1] + (f".{match[2]}" if match[2] else "")
    if version < lowest:
        raise _TooOldError(
            f"client version {text} is too old. Minimum supported API version is {MIN_API_VERSION}, "
            "please upgrade your client to a newer version"
        )
    if version > highest:
        raise InvalidArgument(f"client version {text} is too new. Maximum supported API version is {API_VERSION}")
    return version, match[3]


def build_server(engine: Engine, names: Iterable[str] = ()) -> Server:
    """The HTTP server for an engine; the caller gives it its listening sockets.

    ``names`` are those by which clients on plain TCP know it.
    """
    routes = build_routes()
    web_pages = WebPages(names)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        call: Call | None = None
        try:
            assert isinstance(request.protocol, Connection)
            web_pages.check(request, request.protocol.listener)
            version, path = parse_version(request.path)
            # A name may be typed as Docker stores it, "/web", and then stands behind two slashes.
            handler, parameters = routes.find(request.method, path.replace("//", "/"))
            call = Call(engine, request, parameters, version)
            answer = await handler(call)
            if request.method not in ("GET", "HEAD"):
                await engine.flush()  # what is acknowledged survives a power cut
            return answer
        except _TooOldError as e:
            return web.Response(text=f"{e.message}\n", status=400, headers=HEADERS)
        except KetchError as e:
            status = status_of(e)
            if status >= 500 and status != 501:
                log.warning("%s %s: %s", request.method, request.path, e.message)
            return _failure(call, status, body_of(message_of(e), e.kind))
        except web.HTTPRequestEntityTooLarge:
            text = f"the request's body is larger than {LARGEST_JSON >> 20} MiB"
            return _failure(call, 413, body_of(text, InvalidArgument.kind))
        except ConnectionError:
            return Gone()  # the client left in the middle of a stream: nobody is there to be answered
        except asyncio.CancelledError:
            raise
        except OSError as e:
            error = os_errors.explained(e, f"{request.method} {request.path}")
            log.warning("%s", error.message, exc_info=not os_errors.is_known(e))
            return _failure(call, status_of(error), body_of(message_of(error), error.kind))
        except Exception as e:
            log.exception("%s %s", request.method, request.path)
            text = f"internal error in ketchd (its log has the trace): {type(e).__name__}: {e}"
            return _failure(call, 500, body_of(text, INTERNAL))

    return Server(handle)


def _failure(call: Call | None, status: int, body: dict[str, str]) -> web.StreamResponse:
    if call is not None and call.started:
        # The answer has begun: cutting it off is the only way left to say that it is not whole.
        if call.request.transport is not None:
            call.request.transport.abort()
        return Gone()
    if status == 304:
        return web.Response(status=304, headers=HEADERS)
    return web.Response(body=jsontext.encode(body), status=status, content_type="application/json", headers=HEADERS)
