"""The registry over HTTP: dispatch, errors in the specified form, access log.

aiohttp's low-level server is used as it is, because a small manifest is served in less time than a router takes.
"""

from __future__ import annotations

import logging
import re
import time
from errno import EDQUOT, ENOSPC
from typing import TYPE_CHECKING

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Struct

from ketch.errors import KetchError
from ketch.registry import handlers, names, uploads
from ketch.registry.auth import Access
from ketch.registry.call import VERSION, RegistryCall
from ketch.registry.errors import (
    BLOB_UPLOAD_INVALID,
    NO_SPACE,
    UNAVAILABLE,
    UNKNOWN,
    UNSUPPORTED,
    Refused,
)
from ketch.registry.objects.store import ObjectMissing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import IO, Any

    from aiohttp.abc import AbstractStreamWriter

    from ketch.registry.auth import Htpasswd, TokenVerifier
    from ketch.registry.cache import PullThrough
    from ketch.registry.metrics import Metrics
    from ketch.registry.repositories import Repositories

log = logging.getLogger(__name__)
_PATH = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>manifests|blobs/uploads|blobs|tags|referrers)/(?P<rest>[^/]*)/?\Z")
_PROMETHEUS = "text/plain; version=0.0.4"
_ACTIONS = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}


class RegistryServer(Struct, frozen=True, eq=False, kw_only=True):
    """The server's state, which all requests share."""

    repositories: Repositories
    auth: Htpasswd | TokenVerifier | None
    cache: PullThrough | None
    readonly: bool
    access_log: IO[str] | None
    metrics: Metrics
    collect: Callable[[], Awaitable[object]]
    serves_metrics: bool

    async def handle_metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request at the metrics' own address, without authentication."""
        if request.path != "/metrics" or request.method not in ("GET", "HEAD"):
            return web.Response(status=404, text="404 page not found\n")
        return web.Response(body=self.metrics.text().encode(), headers={"Content-Type": _PROMETHEUS})

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        started = time.perf_counter()
        call = RegistryCall(request, self.repositories, auth=self.auth, cache=self.cache, metrics=self.metrics)
        try:
            response = await self._answer(call)
        except Refused as e:
            response = _refusal(e)
        except web.HTTPException as e:
            response = web.Response(status=e.status, headers={**VERSION, **e.headers})
        except (ConnectionError, aiohttp.ClientPayloadError, TimeoutError):
            call.line(self.access_log, 499, time.perf_counter() - started)
            raise
        except Exception as e:
            response = _refusal(_explained(e, request))
        if not response.prepared:
            for name, value in VERSION.items():
                response.headers.setdefault(name, value)
        try:
            await response.prepare(request)
            await response.write_eof()
        finally:
            seconds = time.perf_counter() - started
            sent = call.sent if call.sent is not None else (response.body_length if response.prepared else 0)
            self.metrics.bytes["out"] += sent
            self.metrics.request(request.method, call.kind, response.status, seconds)
            call.line(self.access_log, response.status, seconds, sent)
        return _Sent(response)

    async def _answer(self, call: RegistryCall) -> web.StreamResponse:
        request = call.request
        path, method = request.path, request.method
        if path in ("/v2/", "/v2"):
            call.kind = "base"
            await call.allow()
            return call.data(b"{}", "application/json", {})
        if path == "/v2/_catalog":
            call.kind = "catalog"
            await call.allow(Access("registry", "catalog", "*"))
            return await handlers.get_catalog(call)
        match = _PATH.match(path)
        if match is None:
            return await self._other(call, path)
        call.kind = match["kind"].replace("blobs/", "")
        call.name = names.repository(match["name"])
        action = _ACTIONS.get(method, "push")
        if call.kind == "uploads":
            action = "push"
        await call.allow(
            *(Access("repository", call.name, verb) for verb in ((action,) if action != "push" else ("pull", "push")))
        )
        if action != "pull":
            self._check_writable()
        return await _dispatch(call, match["rest"])

    def _check_writable(self) -> None:
        if self.readonly:
            raise Refused(UNSUPPORTED, "this registry is read-only")
        if self.cache is not None:
            raise Refused(UNSUPPORTED, "this registry is a cache of another one: push there")

    async def _other(self, call: RegistryCall, path: str) -> web.StreamResponse:
        call.kind = "other"
        if path == "/healthz":
            return call.data(b"ok\n", "text/plain", {})
        if path == "/metrics" and self.serves_metrics:
            await call.allow(Access("registry", "metrics", "*"))
            return call.data(self.metrics.text().encode(), _PROMETHEUS, {})
        if path == "/v2/_ketch/gc" and call.request.method == "POST":
            await call.allow(Access("registry", "gc", "*"))
            return call.data(msgspec.json.encode(await self.collect()), "application/json", {})
        if path.startswith("/v2/"):
            for suffix in ("/tags/list", "/manifests/", "/blobs/"):
                head, found, _ = path.removeprefix("/v2/").partition(suffix)
                if found:
                    names.repository(head)
        return web.Response(status=404, text="404 page not found\n")


class _Sent(web.StreamResponse):
    """A placeholder for an answer that was sent: aiohttp would send a file's a second time."""

    def __init__(self, answer: web.StreamResponse) -> None:
        super().__init__(status=answer.status)
        self._keep_alive = answer.keep_alive

    async def prepare(self, _request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Sent already."""
        return None

    async def write_eof(self, _data: Any = b"") -> None:
        """Sent already."""


async def _dispatch(call: RegistryCall, rest: str) -> web.StreamResponse:
    method = call.request.method
    handler: Callable[[RegistryCall, str], Awaitable[web.StreamResponse]] | None
    if call.kind == "uploads":
        if not rest:
            return await uploads.begin(call) if method == "POST" else _unsupported(method)
        handler = {"GET": uploads.look, "PATCH": uploads.add, "PUT": uploads.finish, "DELETE": uploads.cancel}.get(
            method
        )
        return await handler(call, rest) if handler else _unsupported(method)
    if call.kind == "manifests":
        get, delete = handlers.get_manifest, handlers.delete_manifest
        handler = {"GET": get, "HEAD": get, "PUT": handlers.put_manifest, "DELETE": delete}.get(method)
        return await handler(call, rest) if handler else _unsupported(method)
    if call.kind == "blobs":
        handler = {"GET": handlers.get_blob, "HEAD": handlers.head_blob, "DELETE": handlers.delete_blob}.get(method)
        return await handler(call, rest) if handler else _unsupported(method)
    if method not in ("GET", "HEAD"):
        return _unsupported(method)
    if call.kind == "referrers":
        return await handlers.get_referrers(call, rest)
    if rest != "list":
        return web.Response(status=404, text="404 page not found\n")
    return await handlers.get_tags(call)


def _unsupported(method: str) -> web.StreamResponse:
    raise Refused(UNSUPPORTED, method)


def _refusal(error: Refused) -> web.Response:
    headers = {**VERSION, "Content-Type": "application/json", **error.headers}
    return web.Response(status=error.kind.status, body=error.body(), headers=headers)


def _explained(error: Exception, request: web.BaseRequest) -> Refused:
    """The client's short error for a fault of the server, which is logged in full."""
    if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT):
        log.error("%s %s: %s", request.method, request.path, error)
        return Refused(NO_SPACE)
    if isinstance(error, KetchError):
        return Refused(UNAVAILABLE, error.message)
    if isinstance(error, ObjectMissing):  # deleted between two looks
        return Refused(BLOB_UPLOAD_INVALID, "it has just been deleted")
    log.exception("%s %s", request.method, request.path)
    return Refused(UNKNOWN)
