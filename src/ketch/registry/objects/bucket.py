"""Objects in a bucket of an S3-compatible store, through obstore.

An upload is a row of objects, each a piece that has arrived, named by where it begins: any process can go on with it,
and what a broken request has left behind is overwritten.  At its end they are hashed, unless this process has done that
as they came, and written together into the blob.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ketch.errors import FailedPrecondition
from ketch.registry.objects.store import Found, ObjectMissing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PIECE = 8 << 20
Parts = list[tuple[int, int, str]]


class Bucket:
    """All objects of one bucket (below a prefix)."""

    def __init__(self, url: str, options: dict[str, str]) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as e:
            raise FailedPrecondition(
                f"use {url}: the package obstore is not installed", hint="pip install 'ketch[registry]'"
            ) from e
        self._api: Any = obstore
        plain = options.get("aws_endpoint", "").startswith("http://")
        self._store: Any = from_url(url, config=options, client_options={"allow_http": plain})  # type: ignore[call-overload]
        self._hashes: dict[str, tuple[int, Any]] = {}  # of uploads that this process has seen from their start
        self._missing: Any = (obstore.exceptions.NotFoundError, FileNotFoundError)

    def path(self, _key: str) -> str | None:
        """None: a bucket has no local files."""
        return None

    async def get(self, key: str) -> bytes:
        """One request."""
        try:
            return bytes(await (await self._api.get_async(self._store, key)).bytes_async())
        except self._missing:
            raise ObjectMissing(key) from None

    async def put(self, key: str, data: bytes) -> None:
        """One request; the store answers when it has it."""
        await self._api.put_async(self._store, key, data, use_multipart=False)

    async def head(self, key: str) -> Found:
        """One request."""
        try:
            meta = await self._api.head_async(self._store, key)
        except self._missing:
            raise ObjectMissing(key) from None
        return _found(meta)

    async def delete(self, key: str) -> None:
        """One request."""
        try:
            await self._api.delete_async(self._store, key)
        except self._missing:
            return

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Found]:
        """One request for each page: buckets list in order of keys, after a given one."""
        # object_store matches whole path segments: ask for the directory and look at the rest here.
        directory = prefix.rpartition("/")[0]
        stream = self._api.list(self._store, directory or None, offset=after or None, chunk_size=500)
        async for chunk in stream:
            for meta in chunk:
                if meta["path"].startswith(prefix) and meta["path"] > after:
                    yield _found(meta)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """One request for the range, passed on as it arrives."""
        if start >= end:
            return
        try:
            answer = await self._api.get_async(self._store, key, options={"range": (start, end)})
        except self._missing:
            raise ObjectMissing(key) from None
        async for piece in answer.stream(min_chunk_size=1 << 18):
            yield bytes(piece)

    # -- uploads -------------------------------------------------------------------------------

    async def append(self, upload: str, offset: int, pieces: AsyncIterator[bytes]) -> int:
        """Write pieces as objects of some megabytes; also the incomplete last one of a broken request."""
        known = self._hashes.pop(upload, None)
        hashed = hashlib.sha256() if not offset else known[1] if known is not None and known[0] == offset else None
        waiting: list[bytes] = []
        size = 0
        try:
            async for piece in pieces:
                waiting.append(piece)
                size += len(piece)
                if size >= _PIECE:
                    data, waiting, size = b"".join(waiting), [], 0
                    offset = await self._keep(upload, offset, data, hashed)
        finally:
            if waiting:
                offset = await self._keep(upload, offset, b"".join(waiting), hashed)
            if hashed is not None:
                self._hashes[upload] = (offset, hashed)
        return offset

    async def _keep(self, upload: str, offset: int, data: bytes, hashed: Any) -> int:
        await self.put(_part(upload, offset, len(data)), data)
        if hashed is not None:
            hashed.update(data)
        return offset + len(data)

    async def _parts(self, upload: str) -> Parts:
        """The contiguous pieces from the start, as (offset, bytes, key)."""
        found: dict[int, tuple[int, str]] = {}
        async for part in self.list(f"uploads/{upload}/part-"):
            begin, _, size = part.key.rpartition("part-")[2].partition("-")
            if int(begin) not in found or int(size) > found[int(begin)][0]:
                found[int(begin)] = (int(size), part.key)
        parts: Parts = []
        at = 0
        while at in found:
            size_, key = found[at]
            parts.append((at, size_, key))
            at += size_
        return parts

    async def length(self, upload: str) -> int:
        """The sum of the pieces."""
        return sum(size for _, size, _ in await self._parts(upload))

    async def finish(self, upload: str, digest: str, key: str) -> bool:
        """Write the pieces as one object; the blob appears only when complete."""
        parts = await self._parts(upload)
        algorithm, _, wanted = digest.partition(":")
        length, hashed = self._hashes.get(upload, (-1, None))
        if hashed is None or hashed.name != algorithm or length != sum(size for _, size, _ in parts):
            hashed = hashlib.new(algorithm)
            for _, size, part in parts:
                async for data in self.read(part, 0, size):
                    hashed.update(data)
        if hashed.hexdigest() != wanted:
            return False

        async def content() -> AsyncIterator[bytes]:
            for _, size, part in parts:
                async for data in self.read(part, 0, size):
                    yield data

        await self._api.put_async(self._store, key, content(), chunk_size=_PIECE)
        await self.discard(upload)
        return True

    async def discard(self, upload: str) -> None:
        """Delete the upload's objects."""
        self._hashes.pop(upload, None)
        async for part in self.list(f"uploads/{upload}/"):
            await self.delete(part.key)

    async def close(self) -> None:
        """Nothing to close: obstore does it."""


def _part(upload: str, offset: int, size: int) -> str:
    return f"uploads/{upload}/part-{offset:020}-{size}"


def _found(meta: Any) -> Found:
    return Found(meta["path"], meta["size"], meta["last_modified"].timestamp())
