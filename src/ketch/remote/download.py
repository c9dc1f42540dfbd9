"""A file from a web server (``import http://…``): plain GET, redirects followed, certificates checked."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from ketch.errors import InvalidArgument, KetchError, NotFound, PermissionDenied, Unauthenticated, UnclassifiedArgument
from ketch.remote.errors import BREAKS, unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CHUNK = 1 << 18
_CONNECT_S, _STALL_S = 30.0, 60.0
_REDIRECTS = 10
_SHOWN = 1024
_KINDS = {401: Unauthenticated, 403: PermissionDenied, 404: NotFound}


def address(text: str) -> URL:
    """The address of a source; without a scheme it is HTTP (InvalidArgument).

    UnclassifiedArgument for one that Go's client refuses: a failure of the download.
    """
    if text.startswith("://"):
        raise InvalidArgument(f'parse "{text}": missing protocol scheme', hint="use http or https")
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError as e:
        raise InvalidArgument(f"import from `{text}`: {e}") from e
    if url.scheme not in ("http", "https"):
        raise UnclassifiedArgument(
            f'Get "{text}": unsupported protocol scheme "{url.scheme}"', hint="use http or https"
        )
    if not url.host:
        shown = text if "://" in text else f"http://{text}" if text else "http:"
        raise UnclassifiedArgument(f'Get "{shown}": http: no Host in request URL', hint="give fromSrc or fromImage")
    return url


@asynccontextmanager
async def opened(url: URL) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
    """The size (0: not told) and the bytes of a file (NotFound and others of its status, Unavailable)."""
    limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_STALL_S)
    async with aiohttp.ClientSession(
        timeout=limits, trust_env=True, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        try:
            response = await session.get(
                url, headers={"Accept-Encoding": "identity"}, max_redirects=_REDIRECTS, raise_for_status=False
            )
        except BREAKS as e:
            raise unreachable("GET", url, e) from e
        async with response:
            if response.status >= 400:
                raise await _refused(url, response)
            yield response.content_length or 0, _pieces(url, response)


async def _pieces(url: URL, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for piece in response.content.iter_chunked(_CHUNK):
            yield piece
    except BREAKS as e:
        raise unreachable("GET", url, e) from e


async def _refused(url: URL, response: aiohttp.ClientResponse) -> KetchError:
    try:
        text = (await response.content.read(_SHOWN)).decode(errors="replace")
    except BREAKS:
        text = ""  # the status says what matters
    kind = _KINDS.get(response.status, InvalidArgument if response.status < 500 else KetchError)
    return kind(f"failed to GET {url} with status {response.status} {response.reason}: {text}")
