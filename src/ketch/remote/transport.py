"""Requests to registries: connection reuse, checked redirects, retries.

Authorization      goes to the host that it is for, and after a redirect to another host no more
https → http       a redirect to plain text is refused
429, 5xx, breaks   tried again, with pauses that grow and differ, or as long as ``Retry-After`` says
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from msgspec import Struct

from ketch.errors import PermissionDenied, Unavailable
from ketch.remote import certificates, headers
from ketch.remote.bodies import joined
from ketch.remote.errors import BODY, BREAKS, PASSING, RegistryError, shown, unreachable

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping

    from yarl import URL

    from ketch.remote.settings import Settings

    Body = Callable[[], Any] | bytes | None

_REDIRECTS = 10
_MOVED = frozenset((301, 302, 303, 307, 308))
_BUFFER = 1 << 18  # twice as much is lost when a connection breaks
_LONGEST_PAUSE_S = 15.0
_LASTING = (
    aiohttp.ClientConnectorDNSError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.ClientResponseError,
)


class Request(Struct, frozen=True):
    """A request, with the statuses that are answers to it; other ones are errors.

    ``body``: bytes, or a function that gives it anew for each try; ``attempts``: None is as many as the settings say.
    """

    method: str
    header: Mapping[str, str] = {}
    body: Body = None
    accepted: tuple[int, ...] = (200,)
    attempts: int | None = None


class Transport:
    """Connections to all registries of one daemon; used from one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}

    async def close(self) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def request(
        self, request: Request, url: URL, *, verify: bool = True
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer with one of the statuses ``accepted``, its body still to be read.

        RegistryError for other statuses, Unavailable when there is no answer.
        """
        method = request.method
        tries = request.attempts if request.attempts is not None else self.settings.attempts
        for number in range(1, tries + 1):
            try:
                response = await self._follow(method, url, dict(request.header), request.body, verify)
            except BREAKS as e:
                if number == tries or isinstance(e, aiohttp.ClientSSLError) or not _passes(e):
                    raise unreachable(method, url, e) from e
                await asyncio.sleep(self.pause(number))
                continue
            async with response:
                if response.status in request.accepted:
                    yield response
                    return
                error = await _refused(method, response)
            if error.status not in PASSING or number == tries:
                raise error
            await asyncio.sleep(error.retry_s if error.retry_s is not None else self.pause(number))

    def pause(self, number: int) -> float:
        """Seconds before the next try, after this many."""
        longest = min(self.settings.pause_s * 2**number, _LONGEST_PAUSE_S)
        return random.uniform(longest / 2, longest)

    async def _follow(
        self, method: str, url: URL, header: dict[str, str], body: Body, verify: bool
    ) -> aiohttp.ClientResponse:
        for _ in range(_REDIRECTS):
            response = await self._send(method, url, header, body() if callable(body) else body, verify)
            location = response.headers.get("Location")
            if response.status not in _MOVED or not location or method not in ("GET", "HEAD"):
                return response
            response.release()
            target = joined(url, location)
            if url.scheme == "https" and target.scheme != "https":
                raise PermissionDenied(
                    f"{method} {shown(url)}: redirected to {shown(target)}, which is not encrypted",
                    hint="the registry, or something on the way to it, is not to be trusted",
                )
            if (target.host, target.port) != (url.host, url.port):
                header.pop("Authorization", None)
            url = target
        raise Unavailable(f"{method} {shown(url)}: stopped after {_REDIRECTS} redirects")

    async def _send(
        self, method: str, url: URL, header: dict[str, str], body: Any, verify: bool
    ) -> aiohttp.ClientResponse:
        return await self._client().request(
            method,
            url,
            headers=header,
            data=body,
            allow_redirects=False,
            ssl=self._context(url, verify) if url.scheme == "https" else True,
        )

    def _context(self, url: URL, verify: bool) -> ssl.SSLContext:
        host = url.raw_host or ""
        location = host if url.is_default_port() else f"{host}:{url.port}"
        found = self._contexts.get((location, verify))
        if found is None:
            folders = self.settings.certificates
            found = self._contexts[location, verify] = certificates.context(folders, location, verify=verify)
        return found

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            settings = self.settings
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=settings.connect_s, connect=None, sock_read=settings.stall_s
                ),
                headers={"User-Agent": settings.user_agent, "Accept-Encoding": "identity"},
                auto_decompress=False,
                trust_env=True,
                read_bufsize=_BUFFER,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


async def _refused(method: str, response: aiohttp.ClientResponse) -> RegistryError:
    try:
        body = await response.content.read(BODY) if method != "HEAD" else b""
    except BREAKS:
        body = b""  # the status says what matters
    response.close()
    wait = headers.retry_after(response.headers.get("Retry-After"))
    error = RegistryError(method, response.url, response.status, body, wait)
    error.challenge = response.headers.get("WWW-Authenticate", "")
    return error


def _passes(error: BaseException) -> bool:
    """Whether an error may be transient: neither a refused connection nor one of ``_LASTING``."""
    if isinstance(error, _LASTING) and not isinstance(error, aiohttp.ClientHttpProxyError):
        return False
    return not (isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError))
