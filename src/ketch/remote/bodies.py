"""Bodies and URLs in registries' answers, read within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarl import URL

from ketch.errors import InvalidArgument, Unavailable
from ketch.remote.errors import BREAKS, shown, unreachable

if TYPE_CHECKING:
    import aiohttp


async def whole(response: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
    """A small body (InvalidArgument when it is larger than ``limit`` bytes, Unavailable when it breaks off)."""
    data = bytearray()
    try:
        async for piece in response.content.iter_any():
            data += piece
            if len(data) > limit:
                raise InvalidArgument(f"{what}: larger than {limit} bytes")
    except BREAKS as e:
        raise unreachable(response.method, response.url, e) from e
    return bytes(data)


def joined(base: URL, address: str) -> URL:
    """The URL in a header of an answer from ``base`` (Unavailable: an invalid one)."""
    try:
        return base.join(URL(address, encoded=True))
    except ValueError as e:
        raise Unavailable(f"{shown(base)} points to `{address[:100]}`, which is no address") from e
