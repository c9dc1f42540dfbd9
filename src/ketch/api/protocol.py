"""aiohttp's server with the Engine API's bounds and errors: what is no HTTP at all is answered in JSON, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Go's own bound. (Compose sends filters with an id for each container: longer than the 8 KiB of most web servers.)
MAX_HEADER = 1 << 20


class Server(web.Server):
    """Makes a protocol for each connection."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handler)
        self._options: dict[str, Any] = {
            "access_log": None, "tcp_keepalive": True, "keepalive_timeout": 300, "max_line_size": MAX_HEADER,
            "max_field_size": MAX_HEADER,
        }  # fmt: skip

    def __call__(self) -> RequestHandler:
        """A protocol for one connection."""
        return _Protocol(self, loop=self._loop, **self._options)


class _Protocol(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What could not be understood as a request."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has been sent already")
        text = (message or str(exc) or "malformed request").partition("\n")[0]
        body = msgspec.json.encode({"message": text.rstrip(": ")[:500]})
        answer = web.Response(body=body, status=status, content_type="application/json")
        answer.force_close()
        return answer
