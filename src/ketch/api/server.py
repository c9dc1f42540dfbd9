"""The Engine API over HTTP: one handler, a table of routes, versions, and errors as JSON.

aiohttp's low-level server is used as it is: there is no per-request application, resource tree or
middleware, because a start of a container is six requests and each of them counts.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import HttpVersion11, web

from ketch.api import jsontext, query, versions
from ketch.api.call import HEADERS, Call
from ketch.api.connection import LARGEST_JSON, Connection, Server
from ketch.api.errors import INTERNAL, body_of, message_of, status_of
from ketch.api.routes import (
    archive,
    builders,
    buildkit,
    containers,
    execs,
    images,
    manifests,
    networks,
    plugins,
    registries,
    swarm,
    system,
    usage,
    volumes,
    websockets,
)
from ketch.api.streams import Gone
from ketch.api.webpages import WebPages
from ketch.engine import os_errors
from ketch.engine.model.api_version import API_VERSION, MIN_API_VERSION
from ketch.errors import InvalidArgument, KetchError, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ketch.buildkit.clients import BuildKitClients
    from ketch.engine.engine import Engine

    Handler = Callable[[Call], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)
# dockerd does not look at the whole query of these.
_UNCHECKED = frozenset(
    (
        "/_ping",
        "/info",
        "/version",
        "/containers/{id}/changes",
        "/containers/{id}/export",
        "/containers/{id}/json",
        "/exec/{id}/json",
    )
)
_LOWEST = [int(part) for part in MIN_API_VERSION.split(".")]
_VERSION = re.compile(r"/v([0-9.]{1,100})(/.*)\Z", re.ASCII | re.DOTALL)


class Route(NamedTuple):
    """One entry of a table of routes."""

    method: str
    path: str
    handler: Handler


class Routes:
    """(method, pattern) → handler; the first path segment chooses a short list of patterns."""

    def __init__(self) -> None:
        self._groups: dict[str, list[tuple[re.Pattern[str], Route]]] = {}
        self._patterns: list[tuple[str, str]] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Add a route; ``{name}`` is one segment, ``{name:path}`` may contain slashes (image references do).

        So do containers' names: ``/web/db`` is a link's.
        """
        head = path.split("/")[1]
        expression = path.replace("{id}", "{id:path}") if head == "containers" else path
        expression = re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", expression)
        expression = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", expression)
        self._groups.setdefault(head, []).append((re.compile(expression + r"\Z"), Route(method, path, handler)))
        self._patterns.append((method, path))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route and the path's parameters (NotFound, in Docker's words)."""
        group = path.split("/", 2)[1] if path.startswith("/") else ""  # `OPTIONS *` has none
        for pattern, route in self._groups.get(group, ()):
            if route.method == method and (match := pattern.match(path)):
                return route, match.groupdict()
        if method == "OPTIONS":
            return Route(method, path, _nothing), {}
        raise _NoPageError("page not found")

    def all(self) -> list[tuple[str, str]]:
        """Every (method, path) that is served."""
        return list(self._patterns)


async def _nothing(call: Call) -> web.StreamResponse:
    """An empty answer to OPTIONS, for whatever path."""
    return call.empty(200)


class _NoPageError(NotFound):
    """No route has this path and method."""


class _ExpectationError(InvalidArgument):
    """The header ``Expect`` asks for what no server does."""


class _TooOldError(InvalidArgument):
    """A version whose clients read errors as plain text, as those of Docker 1.11 did."""


def build_routes() -> Routes:
    """Every route of the API."""
    routes = Routes()
    # `registries` before `images`: a search is no image's name; `builders` before `containers`: a checkpoint is none's.
    for module in (
        archive,
        websockets,
        builders,
        buildkit,
        containers,
        execs,
        registries,
        manifests,
        images,
        networks,
        plugins,
        swarm,
        system,
        usage,
        volumes,
    ):
        for method, path, handler in module.ROUTES:
            routes.add(method, path, handler)
    return routes


def split_version(path: str) -> tuple[str, str]:
    """``/v1.43/info`` → (``1.43``, ``/info``); the version is empty without a prefix."""
    match = _VERSION.match(path)
    return (match[1], match[2]) if match else ("", path)


def parse_version(text: str) -> tuple[int, int]:
    """The version that is named (InvalidArgument outside ours); the newest one where none is."""
    if not text:
        return versions.NEWEST
    version = [int(part or 0) for part in text.split(".")]
    while version and not version[-1]:
        version.pop()
    if version < _LOWEST:
        raise _TooOldError(
            f"client version {text} is too old. Minimum supported API version is {MIN_API_VERSION}, "
            "please upgrade your client to a newer version"
        )
    if version > [*versions.NEWEST]:
        raise InvalidArgument(f"client version {text} is too new. Maximum supported API version is {API_VERSION}")
    return version[0], version[1]


def build_server(
    engine: Engine,
    buildkit_clients: BuildKitClients,
    names: Iterable[str] = (),
    more: Iterable[tuple[str, str, Handler]] = (),
) -> Server:
    """The HTTP server for an engine; the caller gives it its listening sockets.

    The arguments are those of `build_handler`.
    """
    return Server(build_handler(engine, buildkit_clients, names, more))


def build_handler(
    engine: Engine,
    buildkit_clients: BuildKitClients,
    names: Iterable[str] = (),
    more: Iterable[tuple[str, str, Handler]] = (),
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """The handler of requests to an engine.

    ``buildkit_clients`` gets the connections of BuildKit's clients, ``names`` are those by which clients on plain TCP
    know it, ``more`` are routes (method, path, handler) of the daemon itself.
    """
    routes = build_routes()
    for method, path, handler in more:
        routes.add(method, path, handler)
    web_pages = WebPages(names)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        call: Call | None = None
        try:
            assert isinstance(request.protocol, Connection)
            web_pages.check(request, request.protocol.listener)
            text, path = split_version(request.path)
            # A name may be typed as Docker stores it, "/web", and then stands behind two slashes.
            route, parameters = routes.find(request.method, path.replace("//", "/"))
            version = parse_version(text)
            call = Call(engine, buildkit_clients, request, parameters, version)
            _read_query(call, route)
            if "Expect" in request.headers and request.version == HttpVersion11:
                await _meet_expectation(request)
            answer = await route.handler(call)
            if request.method not in ("GET", "HEAD"):
                await engine.flush()  # what is acknowledged survives a power cut
            return answer
        except KetchError as e:
            return _refusal(call, request, e)
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

    return handle


def _read_query(call: Call, route: Route) -> None:
    """Check the query, and take from it what the request's version does not have (InvalidArgument)."""
    raw = call.request.raw_path.partition("?")[2]
    if ("%" in raw or ";" in raw) and route.path not in _UNCHECKED:
        query.check(raw)
    if call.version < versions.NEWEST:
        call.query = versions.read_query(route.method, route.path, call.query, call.version)


def _refusal(call: Call | None, request: web.BaseRequest, error: KetchError) -> web.StreamResponse:
    if isinstance(error, _TooOldError):
        headers = HEADERS | {"X-Content-Type-Options": "nosniff"}
        return web.Response(text=f"{error.message}\n", status=400, headers=headers)
    if isinstance(error, _NoPageError):
        return _error(404, body_of(error.message, error.kind), {})  # dockerd tells no version there
    if isinstance(error, _ExpectationError):
        answer = _error(417, body_of(error.message, error.kind), {})
        answer.force_close()
        return answer
    status = status_of(error)
    if status >= 500 and status != 501:
        log.warning("%s %s: %s", request.method, request.path, error.message)
    return _failure(call, status, body_of(message_of(error), error.kind))


def _failure(call: Call | None, status: int, body: dict[str, str]) -> web.StreamResponse:
    if call is not None and call.started:
        # The answer has begun: cutting it off is the only way left to say that it is not whole.
        if call.request.transport is not None:
            call.request.transport.abort()
        return Gone()
    if status == 304:
        return web.Response(status=304, headers=HEADERS)
    return _error(status, body, HEADERS)


def _error(status: int, body: dict[str, str], headers: dict[str, str]) -> web.Response:
    return web.Response(body=jsontext.line(body), status=status, content_type="application/json", headers=headers)


async def _meet_expectation(request: web.BaseRequest) -> None:
    """Tell a client that waits before it sends a large body (curl does) to go on (_ExpectationError: other wishes)."""
    expected = request.headers["Expect"]
    if expected.lower() != "100-continue":
        raise _ExpectationError(f"no expectation but `100-continue` can be met (Expect: {expected[:100]})")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # of the answer, none has been sent
