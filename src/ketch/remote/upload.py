"""Uploads of blobs: in one piece; after a break, or if the registry refuses the size, in chunks.

POST blobs/uploads/               202, Location
PUT  Location&digest=…            the whole blob as its body                 → 201
GET  Location                     after a break: Range says what has arrived
PATCH Location, Content-Range     a chunk                                    → 202, new Location
PUT  Location&digest=…            without a body
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from yarl import URL

from ketch.errors import Unavailable
from ketch.notation import digits
from ketch.remote import headers
from ketch.remote.bodies import joined
from ketch.remote.errors import PASSING, RegistryError, denied
from ketch.remote.transport import Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ketch.oci.manifest import Descriptor
    from ketch.remote.repository import Repository

_CHUNK = 32 << 20
_TOO_LARGE = 413
_BINARY = {"Content-Type": "application/octet-stream"}


class Upload:
    """The upload of one blob, over as many requests as it takes."""

    def __init__(
        self,
        repository: Repository,
        descriptor: Descriptor,
        open_at: Callable[[int], AsyncIterator[bytes]],
        progress: Callable[[int], None],
    ) -> None:
        """``open_at(offset)`` gives the blob's pieces from there on; ``progress`` is called with the bytes sent."""
        self._repository, self._descriptor = repository, descriptor
        self._open_at, self._progress, self._transport = open_at, progress, repository.transport
        self._location = URL()
        self._chunk = _CHUNK

    async def run(self) -> None:
        """Upload the blob (Unauthenticated, PermissionDenied, InvalidArgument, Unavailable)."""
        attempts = self._transport.settings.attempts
        try:
            await self._begin()
            for number in range(1, attempts + 1):
                try:
                    if number == 1:
                        return await self._at_once()
                    return await self._go_on()
                except Unavailable:
                    if number == attempts:
                        raise
                except RegistryError as e:
                    if e.status != _TOO_LARGE and (e.status not in PASSING or number == attempts):
                        raise
                    if e.status == _TOO_LARGE:
                        self._chunk = max(self._chunk // 4, 1 << 20)
                await asyncio.sleep(self._transport.pause(number))
        except RegistryError as e:
            raise denied(e) from e

    async def _begin(self) -> None:
        async with self._repository.ask(Request("POST", body=b"", accepted=(202,)), "blobs/uploads/") as response:
            self._location = joined(response.url, response.headers.get("Location", ""))
            shortest = digits.whole(response.headers.get("OCI-Chunk-Min-Length", ""))
            self._chunk = max(self._chunk, shortest or 0)

    def _final(self) -> URL:
        return self._location.extend_query(digest=self._descriptor.digest)

    async def _at_once(self) -> None:
        size = self._descriptor.size
        async with self._repository.ask(
            Request(
                "PUT",
                header={**_BINARY, "Content-Length": str(size)},
                body=lambda: self._counted(0, size),
                accepted=(201,),
                attempts=1,
            ),
            self._final(),
        ):
            self._progress(size)

    async def _go_on(self) -> None:
        """Resume at the registry's offset, or from the beginning when it has forgotten the upload."""
        at = await self._arrived()
        size = self._descriptor.size
        while at < size:
            end = min(at + self._chunk, size)
            header = {**_BINARY, "Content-Length": str(end - at), "Content-Range": f"{at}-{end - 1}"}
            async with self._repository.ask(
                Request(
                    "PATCH",
                    header=header,
                    body=functools.partial(self._counted, at, end),
                    accepted=(202, 201, 204),
                    attempts=1,
                ),
                self._location,
            ) as response:
                self._location = joined(response.url, response.headers.get("Location", str(self._location)))
            at = end
        async with self._repository.ask(Request("PUT", body=b"", accepted=(201,), attempts=1), self._final()):
            self._progress(size)

    async def _arrived(self) -> int:
        try:
            async with self._repository.ask(Request("GET", accepted=(204, 200)), self._location) as response:
                given = headers.range_of(response.headers.get("Range", ""))
                self._location = joined(response.url, response.headers.get("Location", str(self._location)))
                return given[1] + 1 if given is not None and given[1] > 0 else 0
        except RegistryError as e:
            if e.status != 404:
                raise
        await self._begin()
        return 0

    async def _counted(self, start: int, end: int) -> AsyncIterator[bytes]:
        at = start
        async for piece in self._open_at(start):
            part = piece[: end - at]
            if part:
                yield part
                at += len(part)
                self._progress(at)
            if at >= end:
                return
