"""Searching a registry for images: Docker's old index API (``/v1/search``), which Docker Hub and few others have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from yarl import URL

from ketch.errors import InvalidArgument, KetchError, Unavailable
from ketch.remote.bodies import whole
from ketch.remote.errors import RegistryError, shown
from ketch.remote.repository import decode
from ketch.remote.transport import Request

if TYPE_CHECKING:
    from ketch.remote.client import Remotes
    from ketch.remote.credentials import Credentials

HUB = "index.docker.io"
_LARGEST = 4 << 20


class Result(msgspec.Struct):
    """One image that was found; the names are the API's."""

    name: str = ""
    description: str = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Page(msgspec.Struct):
    results: list[Result] | None = None


async def search(remotes: Remotes, term: str, limit: int, credentials: Credentials | None = None) -> list[Result]:
    """The images that match ``term``, or ``HOST/term`` on another registry (InvalidArgument, Unavailable)."""
    if "://" in term:
        raise InvalidArgument(f"invalid repository name: repository name ({term}) should not have a scheme")
    first, slash, rest = term.partition("/")
    named = bool(slash) and ("." in first or ":" in first or first == "localhost")
    host, words = (first, rest) if named else (HUB, term.removeprefix("library/"))
    insecure = remotes.settings.is_insecure(host)
    header = {"Authorization": credentials.basic()} if credentials and credentials.username else {}
    tried = []
    for scheme in ("https", "http") if insecure else ("https",):
        url = URL(f"{scheme}://{host}/v1/search").with_query({"q": words, "n": str(limit)})
        tries = 1 if insecure and scheme == "https" else None
        try:
            request = Request("GET", header, attempts=tries)
            async with remotes.transport.request(request, url, verify=not insecure) as response:
                page: _Page = decode(await whole(response, _LARGEST, "search"), _Page, "search")
                return page.results or []
        except RegistryError as e:
            raise KetchError(f"Unexpected status code {e.status}", hint=e.text or f"of {shown(url)}") from e
        except Unavailable as e:
            if not named:
                raise
            tried.append(f"{scheme.upper()} attempt: {e.message}")
    raise InvalidArgument(f'invalid registry endpoint "{scheme}://{host}/v1/". {". ".join(tried)}')
