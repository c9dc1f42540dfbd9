"""The pull-through cache: content of an upstream registry, kept, and served also while that is down.

A tag is asked for again after ``ttl_s`` seconds; what has a digest never changes.  A blob that several clients want at
once is fetched once, and they read it while it arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from typing import IO, TYPE_CHECKING

from ketch.errors import KetchError, NotFound
from ketch.oci import manifest as oci
from ketch.oci.reference import Reference
from ketch.registry.errors import UNAVAILABLE, Refused
from ketch.registry.objects import store as objects
from ketch.remote.client import host_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.registry.metrics import Metrics
    from ketch.registry.repositories import Repositories, StoredManifest
    from ketch.remote.client import Remotes
    from ketch.remote.credentials import Credentials
    from ketch.remote.repository import Repository

log = logging.getLogger(__name__)
_PIECE = 1 << 20


class Fetch:
    """The download of one blob from the upstream; ``size`` bytes in all."""

    def __init__(self, size: int, path: str | None) -> None:
        self.size, self._path = size, path
        self.task: asyncio.Task[None]
        self._more = asyncio.Event()

    def grown(self) -> None:
        """Wake the readers after a write."""
        self._more.set()

    @property
    def can_follow(self) -> bool:
        """Whether the blob can be read during its download, which needs a file."""
        return self._path is not None

    async def follow(self) -> AsyncIterator[bytes]:
        """The blob's bytes during the download; ends early when the upstream fails."""
        file: IO[bytes] | None = None
        sent = 0
        try:
            while sent < self.size:
                self._more.clear()
                if file is None:
                    with contextlib.suppress(FileNotFoundError):
                        file = open(str(self._path), "rb")  # noqa: SIM115 - closed below
                data = file.read(_PIECE) if file is not None else b""
                if data:
                    sent += len(data)
                    yield data
                elif self.task.done():
                    return
                else:
                    waiting = asyncio.ensure_future(self._more.wait())
                    await asyncio.wait([waiting, self.task], return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()
        finally:
            if file is not None:
                file.close()


class PullThrough:
    """The cache of one upstream."""

    def __init__(
        self,
        repositories: Repositories,
        remotes: Remotes,
        upstream: str,
        credentials: Credentials | None,
        ttl_s: float,
        metrics: Metrics,
    ) -> None:
        self._repositories, self._remotes = repositories, remotes
        self._domain, self._credentials, self._ttl_s = host_of(upstream), credentials, ttl_s
        self._metrics = metrics
        self._asked: dict[tuple[str, str], float] = {}
        self._fetches: dict[str, Fetch] = {}

    def _upstream(self, name: str) -> Repository:
        return self._remotes.repository(Reference(self._domain, name), self._credentials)

    async def manifest(self, name: str, ref: str) -> StoredManifest | None:
        """A manifest: the stored one if it is certainly current, else the upstream's, else the stored one."""
        local = await self._repositories.manifest(name, ref)
        fresh = ":" in ref or time.monotonic() - self._asked.get((name, ref), -self._ttl_s) < self._ttl_s
        if local is not None and fresh:
            self._metrics.values["cache_hits"] += 1
            return local
        upstream = self._upstream(name)
        try:
            if local is not None:
                now = await upstream.head(ref)
                if now is not None and now.digest == local.digest:
                    self._asked[name, ref] = time.monotonic()
                    self._metrics.values["cache_hits"] += 1
                    return local
            found = await upstream.manifest(ref)
        except NotFound:
            return None
        except KetchError as e:
            if local is None:
                raise Refused(UNAVAILABLE, e.message) from e
            log.warning("serve %s:%s from the cache: %s", name, ref, e.message)
            return local
        self._metrics.values["cache_misses"] += 1
        tags, digest = ([], ref) if ":" in ref else ([ref], "")
        await self._repositories.put_manifest(
            name, found.data, found.descriptor.media_type, tags, digest=digest, check=False
        )
        self._asked[name, ref] = time.monotonic()
        return await self._repositories.manifest(name, ref)

    async def blob(self, name: str, digest: str) -> Fetch | None:
        """Fetch a missing blob, or join the fetch under way; None when the upstream lacks it."""
        known = self._fetches.get(digest)
        if known is not None:
            return known
        upstream = self._upstream(name)
        try:
            size = await upstream.blob_size(digest)
        except KetchError as e:
            raise Refused(UNAVAILABLE, e.message) from e
        if size is None:
            return None
        if digest not in self._fetches:  # somebody may have come first meanwhile
            upload = secrets.token_hex(16)
            fetch = Fetch(size, self._repositories.store.path(f"uploads/{upload}/data"))
            fetch.task = asyncio.create_task(self._fetch(fetch, upstream, name, digest, upload))
            fetch.task.add_done_callback(lambda task: self._ended(digest, task))
            self._fetches[digest] = fetch
        self._metrics.values["cache_misses"] += 1
        return self._fetches[digest]

    def _ended(self, digest: str, task: asyncio.Task[None]) -> None:
        del self._fetches[digest]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("fetch %s: %s", digest, error)

    async def _fetch(self, fetch: Fetch, upstream: Repository, name: str, digest: str, upload: str) -> None:
        store = self._repositories.store
        await store.put(f"uploads/{upload}/repository", name.encode())
        descriptor = oci.Descriptor(media_type="application/octet-stream", digest=digest, size=fetch.size)
        try:
            await self._repositories.claim(digest)
            async with upstream.blob(descriptor) as (_, pieces):
                await store.append(upload, 0, _notifying(pieces, fetch))
            if not await store.finish(upload, digest, objects.blob(digest)):
                raise Refused(UNAVAILABLE, f"the upstream's {digest} has other content")
            await self._repositories.link(name, digest)
        finally:
            await store.discard(upload)


async def _notifying(pieces: AsyncIterator[bytes], fetch: Fetch) -> AsyncIterator[bytes]:
    left = fetch.size
    async for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise Refused(UNAVAILABLE, f"the upstream sends more than the {fetch.size} bytes promised")
        yield piece
        fetch.grown()
