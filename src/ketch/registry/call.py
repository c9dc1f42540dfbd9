"""One request to the registry, as its handler sees it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from ketch.notation import times
from ketch.registry.errors import SIZE_INVALID, Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import IO

    from ketch.registry.auth import Access, Htpasswd, TokenVerifier
    from ketch.registry.cache import PullThrough
    from ketch.registry.metrics import Metrics
    from ketch.registry.repositories import Repositories

VERSION = {"Docker-Distribution-Api-Version": "registry/2.0", "Server": "ketch-registry"}
_encode = msgspec.json.Encoder().encode


class RegistryCall:
    """One request: user, repository, and ways to answer."""

    def __init__(
        self,
        request: web.BaseRequest,
        repositories: Repositories,
        *,
        auth: Htpasswd | TokenVerifier | None,
        cache: PullThrough | None,
        metrics: Metrics,
    ) -> None:
        self.request, self.repositories, self.store = request, repositories, repositories.store
        self.cache, self.metrics = cache, metrics
        self._auth = auth
        self.name = self.user = ""
        self.kind = "other"
        self.bytes_in = 0
        self.sent: int | None = None

    async def allow(self, *access: Access) -> None:
        """Check that the client has these accesses (UNAUTHORIZED, DENIED)."""
        if self._auth is not None:
            self.user = await self._auth.check(self.request.headers.get("Authorization", ""), access)

    async def body(self, limit: int) -> bytes:
        """Read a small body (SIZE_INVALID)."""
        data = bytearray()
        async for piece in self.request.content.iter_any():
            data += piece
            if len(data) > limit:
                raise Refused(SIZE_INVALID, f"more than {limit} bytes")
        self.bytes_in += len(data)
        self.metrics.bytes["in"] += len(data)
        return bytes(data)

    def data(self, data: bytes, media_type: str, headers: dict[str, str]) -> web.Response:
        """An answer with a body."""
        return web.Response(body=data, headers={**VERSION, "Content-Type": media_type, **headers})

    def empty(self, status: int, headers: dict[str, str] | None = None) -> web.Response:
        """An answer without a body."""
        return web.Response(status=status, headers={**VERSION, **(headers or {})})

    async def stream(self, status: int, headers: dict[str, str], pieces: AsyncIterator[bytes]) -> web.StreamResponse:
        """An answer whose body comes in pieces; if it ends early, the connection is closed."""
        response = web.StreamResponse(status=status, headers={**VERSION, **headers})
        await response.prepare(self.request)
        self.sent = 0
        async for piece in pieces:
            await response.write(piece)
            self.sent += len(piece)
        if self.sent != int(headers["Content-Length"]) and self.request.transport is not None:
            self.request.transport.abort()  # the client must not take the part for the whole
        return response

    def line(self, target: IO[str] | None, status: int, seconds: float, sent: int = 0) -> None:
        """Write a line of the access log."""
        if target is None:
            return
        request = self.request
        entry = {
            "time": times.rfc3339(int(time.time()) * 10**9),
            "remote": request.remote or "",
            "user": self.user,
            "method": request.method,
            "path": request.path_qs,
            "status": status,
            "bytes_in": self.bytes_in,
            "bytes_out": sent,
            "seconds": round(seconds, 6),
            "agent": request.headers.get("User-Agent", ""),
        }
        target.write(_encode(entry).decode() + "\n")
        target.flush()
