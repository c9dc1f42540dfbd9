"""Objects as files, written beside their place, synced and renamed: readers see all or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
import os
import secrets
from typing import TYPE_CHECKING, TypeVar

from ketch.failpoints import failpoint
from ketch.registry.objects.store import Found, ObjectMissing
from ketch.storage.removal import try_to_remove

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

T = TypeVar("T")

_PIECE = 1 << 20
_BATCH = 1 << 20
_TRIES = 20


class Disk:
    """All objects below ``root``; several processes may share it."""

    def __init__(self, root: str) -> None:
        self._root = os.path.abspath(root)
        self._hashes: dict[str, tuple[int, hashlib._Hash]] = {}  # of uploads seen from their start
        os.makedirs(os.path.join(self._root, "blobs"), exist_ok=True)

    def _path(self, key: str) -> str:
        if ".." in key.split("/"):  # who makes keys has looked at what they are made of: here it is a mistake of ours
            raise ValueError(f"key `{key[:200]}` leads out of the registry's files")
        return os.path.join(self._root, key)

    def path(self, key: str) -> str | None:
        """The object's file."""
        return self._path(key)

    async def get(self, key: str) -> bytes:
        """Read a small file."""
        try:
            with open(self._path(key), "rb") as f:
                return f.read()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise ObjectMissing(key) from None

    async def put(self, key: str, data: bytes) -> None:
        """Write, sync, rename."""
        await asyncio.to_thread(self._put, key, data)

    def _put(self, key: str, data: bytes) -> None:
        target = self._path(key)
        fresh = f"{target}.{secrets.token_hex(4)}.new"
        try:
            with _in_directory(target, lambda: open(fresh, "xb")) as f:
                f.write(data)
                f.flush()
                os.fdatasync(f.fileno())
            os.rename(fresh, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)
            raise
        _sync_directory(os.path.dirname(target))

    async def head(self, key: str) -> Found:
        """Size and time from stat(2)."""
        try:
            status = os.stat(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(key) from None
        return Found(key, status.st_size, status.st_mtime)

    async def delete(self, key: str) -> None:
        """Unlink, and remove directories that are empty then."""
        path = self._path(key)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)
        with contextlib.suppress(OSError):  # somebody else is in it
            while (path := os.path.dirname(path)) != self._root:
                os.rmdir(path)

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Found]:
        """Walk the tree in order, without directories that are wholly before ``after``."""
        found = iter(self._walk(prefix, after))
        while batch := await asyncio.to_thread(_some, found):
            for item in batch:
                yield item

    def _walk(self, prefix: str, after: str) -> Iterator[Found]:
        head = prefix.rpartition("/")[0]
        waiting = [head + "/" if head else ""]
        while waiting:  # a heap of keys: directories end in a slash, which sorts them where their content belongs
            key = heapq.heappop(waiting)
            if not key.endswith("/") and key:
                if key.startswith(prefix) and key > after:
                    with contextlib.suppress(FileNotFoundError):
                        status = os.stat(self._path(key))
                        yield Found(key, status.st_size, status.st_mtime)
                continue
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._path(key)) as entries:
                for entry in entries:
                    name = key + entry.name + ("/" if entry.is_dir() else "")
                    fits = name.startswith(prefix) or prefix.startswith(name)
                    past = name > after or after.startswith(name)
                    if fits and past and not name.endswith(".new"):
                        heapq.heappush(waiting, name)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Read for clients that sendfile(2) cannot serve (TLS)."""
        try:
            f = open(self._path(key), "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            raise ObjectMissing(key) from None
        with f:
            f.seek(start)
            while start < end and (data := await asyncio.to_thread(f.read, min(_PIECE, end - start))):
                yield data
                start += len(data)

    # -- uploads -------------------------------------------------------------------------------

    def _upload(self, upload: str) -> str:
        return os.path.join(self._root, "uploads", upload, "data")

    async def append(self, upload: str, offset: int, pieces: AsyncIterator[bytes]) -> int:
        """Write and hash in threads, while the next bytes arrive."""
        path = self._upload(upload)
        known = self._hashes.pop(upload, None)
        if known is None and offset == 0:
            known = (0, hashlib.sha256())
        digest = known[1] if known is not None and known[0] == offset else None
        with open(path, "r+b" if os.path.exists(path) else "xb", buffering=0) as f:
            f.truncate(offset)
            f.seek(offset)
            writing: asyncio.Future[int] | None = None
            try:
                async for batch in _batches(pieces):
                    if writing is not None:
                        offset += await writing
                    writing = asyncio.ensure_future(asyncio.to_thread(_write, f, digest, batch))
            finally:
                if writing is not None:
                    offset += await asyncio.shield(writing)
                if digest is not None:
                    self._hashes[upload] = (offset, digest)
        return offset

    async def length(self, upload: str) -> int:
        """The file's size."""
        try:
            return os.stat(self._upload(upload)).st_size
        except FileNotFoundError:
            return 0

    async def finish(self, upload: str, digest: str, key: str) -> bool:
        """Compare, fsync, rename; the file is hashed again when another process wrote a part, and for sha512.

        What does not reach the disk is gone, and has to be sent again: the next fsync would succeed, for nothing.
        """
        return await asyncio.to_thread(self._finish, upload, digest, key)

    def _finish(self, upload: str, digest: str, key: str) -> bool:
        path, target = self._upload(upload), self._path(key)
        with open(path, "ab") as f:
            size = f.tell()
            algorithm, _, wanted = digest.partition(":")
            known = self._hashes.get(upload)
            hashed = known is not None and known[0] == size and known[1].name == algorithm
            actual = known[1].hexdigest() if known is not None and hashed else _hash_of(path, algorithm)
            if actual != wanted:
                return False
            try:
                failpoint("registry.upload-sync")
                os.fdatasync(f.fileno())
            except OSError:
                self._forget(upload)
                raise
        _in_directory(target, lambda: os.rename(path, target))
        _sync_directory(os.path.dirname(target))
        self._forget(upload)
        return True

    async def discard(self, upload: str) -> None:
        """Remove the upload's directory."""
        await asyncio.to_thread(self._forget, upload)

    def _forget(self, upload: str) -> None:
        self._hashes.pop(upload, None)
        try_to_remove(os.path.dirname(self._upload(upload)))

    async def close(self) -> None:
        """Nothing to close."""


async def _batches(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Pieces gathered into batches, for threads."""
    batch: list[bytes] = []
    size = 0
    async for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write(f: object, digest: hashlib._Hash | None, batch: list[bytes]) -> int:
    total = 0
    for piece in batch:
        view = memoryview(piece)
        while view:
            view = view[f.write(view) :]  # type: ignore[attr-defined]
        if digest is not None:
            digest.update(piece)
        total += len(piece)
    return total


def _in_directory(target: str, act: Callable[[], T]) -> T:
    """Run ``work`` with the directory of ``target``, made again if a deletion removes it meanwhile."""
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError, FileExistsError):  # the latter is what makedirs makes of a race
            os.makedirs(os.path.dirname(target), exist_ok=True)
            return act()
    os.makedirs(os.path.dirname(target), exist_ok=True)
    return act()


def _some(found: Iterator[Found]) -> list[Found]:
    return [item for item, _ in zip(found, range(500), strict=False)]


def _hash_of(path: str, algorithm: str) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, algorithm).hexdigest()


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
