"""One request of the Engine API, as its handler sees it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import HttpVersion11, web

from ketch.api import gojson, jsontext
from ketch.engine.model.api_version import API_VERSION
from ketch.errors import InvalidArgument
from ketch.threads import in_own_thread

if TYPE_CHECKING:
    from ketch.buildkit.clients import BuildKitClients
    from ketch.engine.engine import Engine

HEADERS = {
    "Api-Version": API_VERSION,
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": "Ketch (linux)",
}
SESSION = "Ketch-Session"  # the header with the session that a container ends with
_TOKEN = r"[\w!#$%&'*+.^`|~-]+"
_PARAMETERS = re.compile(rf"""(\s*;\s*{_TOKEN}\s*=\s*({_TOKEN}|"([^"\\]|\\.)*"))*\s*;?\s*\Z""", re.ASCII)


class Call:
    """One request: the engine, the path's parameters, and ways to answer."""

    __slots__ = ("buildkit", "engine", "path", "query", "request", "started", "version")

    def __init__(
        self,
        engine: Engine,
        buildkit: BuildKitClients,
        request: web.BaseRequest,
        path: dict[str, str],
        version: tuple[int, int],
    ) -> None:
        self.engine = engine
        self.buildkit = buildkit
        self.request = request
        self.path = path
        self.version = version
        self.query = request.query
        self.started = False

    async def body(self, kind: type[Any], *, optional: bool = False) -> Any:
        """The JSON body as ``kind``; InvalidArgument with the place of the mistake."""
        raw = await self.request.read()
        self.check_content_type(raw)
        if not raw.strip():
            if optional:
                return kind()
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        try:
            if optional and raw.strip() == b"null":
                return kind()
            return gojson.decode(raw, kind, getattr(kind, "GO_NAME", ""))
        except msgspec.ValidationError as e:
            raise InvalidArgument(f"invalid JSON: {e}") from e

    def check_content_type(self, body: bytes) -> None:
        """InvalidArgument unless it is JSON's: any other kind, and none, a web page may send without being asked.

        Without a body there need not be one.
        """
        media = self.request.headers.get("Content-Type", "")
        if not (media or body):
            return
        kind, semicolon, parameters = media.partition(";")
        kind = kind.strip().lower()
        if not kind:
            raise InvalidArgument(f"malformed Content-Type header ({media}): mime: no media type")
        if not _PARAMETERS.match(semicolon + parameters):
            raise InvalidArgument(f"malformed Content-Type header ({media}): mime: invalid media parameter")
        if kind == "application/json":
            return
        raise InvalidArgument(f"unsupported Content-Type header ({media}): must be 'application/json'")

    def json(self, value: Any, status: int = 200) -> web.StreamResponse:
        """``value`` as a JSON answer."""
        return _json(jsontext.line(value), status)

    async def long_json(self, value: Any) -> web.StreamResponse:
        """``value``, which may have any number of items, as a JSON answer that is encoded beside the event loop."""
        return _json(await in_own_thread(lambda: jsontext.line(value)), 200)

    def empty(self, status: int = 204) -> web.StreamResponse:
        """An answer without a body."""
        return web.Response(status=status, headers=HEADERS)

    async def stream(
        self, content_type: str = "application/json", status: int = 200, headers: dict[str, str] | None = None
    ) -> web.StreamResponse:
        """An answer whose headers are sent now; the caller writes and the server ends it.

        It comes in chunks, to clients of HTTP/1.0 until the end of the connection.
        """
        all_headers = {**HEADERS, **(headers or {}), "Content-Type": content_type}
        response = web.StreamResponse(status=status, headers=all_headers)
        if self.request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        self.started = True
        await response.prepare(self.request)
        return response


def _json(body: bytes, status: int) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", headers=HEADERS)
