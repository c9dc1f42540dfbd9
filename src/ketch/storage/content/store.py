"""Content-addressed blobs, kept as an OCI image-layout so that other programs can read them.

    content/oci-layout, index.json       (image-spec v1.1 §image-layout)
    content/blobs/sha256/<hex>           committed, verified, never changed
    content/ingest/<random>              being written
    content/ingest/<hex>.part            being downloaded, or waiting for its download to go on (`partial`)

Write → compare the digest → fsync → rename → fsync the directory: a blob that has its name is whole.  Work that
writes many blobs leaves the fsyncs to one ``sync`` before it records what they are; what a power cut left
unrecorded is deleted at the next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import weakref
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from ketch.errors import DataLoss, InvalidArgument, NotFound
from ketch.failpoints import failpoint
from ketch.linux.openat2 import syncfs
from ketch.storage.content.partial import Partial, sweep
from ketch.storage.lost import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)
_BUFFER = 1 << 20


class Ingest:
    """A blob being written; without ``commit`` it is removed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self.file: IO[bytes] = open(path, "xb")  # noqa: SIM115 - closed by ContentStore.ingest

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        self.file.write(data)
        self._hash.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        """The digest of the bytes written so far."""
        return "sha256:" + self._hash.hexdigest()


class ContentStore:
    """All blobs under one root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._blobs = os.path.join(root, "blobs", "sha256")
        self._ingest = os.path.join(root, "ingest")
        os.makedirs(root, mode=0o710, exist_ok=True)
        self._have_folders()
        # One descriptor for all of its life: the kernel tells it of each write that failed since it was opened.
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self._fd)
        sweep(self._ingest)  # what an earlier process did not finish
        layout = os.path.join(root, "oci-layout")
        if not os.path.exists(layout):
            self._replace("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')

    def close(self) -> None:
        """Close the directory; nothing can be written to the store afterwards."""
        self._close()

    def _have_folders(self) -> None:
        """Make missing directories, also after a removal by others (DataLoss: of the whole store)."""
        try:
            for path in (os.path.dirname(self._blobs), self._blobs, self._ingest):
                with suppress(FileExistsError):
                    os.mkdir(path)
        except FileNotFoundError as e:
            raise DataLoss(
                f"the content of images is missing: there is no `{self.root}`",
                hint="put it back, or start ketchd again: it begins with an empty one, and images can be pulled again",
            ) from e

    @property
    def ingest_root(self) -> str:
        """The directory of incomplete blobs."""
        self._have_folders()
        return self._ingest

    def path(self, digest: str) -> str:
        """The path of a blob, whether it exists or not."""
        return os.path.join(self._blobs, digest.removeprefix("sha256:"))

    def exists(self, digest: str) -> bool:
        """Whether the blob exists."""
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        """The size of a blob in bytes (NotFound)."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise self._missing(digest) from None

    def open(self, digest: str) -> IO[bytes]:
        """A blob as a file; the caller closes it (NotFound)."""
        try:
            return open(self.path(digest), "rb")
        except FileNotFoundError:
            raise self._missing(digest) from None

    def _missing(self, digest: str) -> NotFound:
        return NotFound(f"blob {digest} is missing: there is no `{self.path(digest)}`", hint="pull or load it again")

    def read(self, digest: str, limit: int = 8 << 20) -> bytes:
        """A small blob whole, verified (NotFound, DataLoss)."""
        with self.open(digest) as f:
            data = f.read(limit + 1)
        if len(data) > limit:
            raise InvalidArgument(f"read blob {digest}: larger than {limit} bytes")
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            raise DataLoss(f"read blob {digest}: its content does not match its digest")
        return data

    @contextmanager
    def ingest(
        self, expected: str | None = None, *, hold: Callable[[str], None] | None = None, durable: bool = True
    ) -> Iterator[Ingest]:
        """A context in which a blob is written; it is committed at the end, or removed on an error.

        ``hold`` (a lease's) is called with the digest before the blob gets its name.  Without ``durable`` it is
        the caller who calls ``sync``.  InvalidArgument when ``expected`` is given and the digest is another one.
        """
        path = self.temporary()
        ingest = Ingest(path)
        try:
            yield ingest
            if expected is not None and ingest.digest != expected:
                raise InvalidArgument(f"write blob: expected {expected}, got {ingest.digest}")
            ingest.file.flush()
            if hold is not None:
                hold(ingest.digest)
            if durable:
                os.fsync(ingest.file.fileno())
            failpoint("image.blob-written")
            known = self.exists(ingest.digest)
            os.rename(path, self.path(ingest.digest))
            failpoint("image.blob-named")
            if durable:
                self._sync_name(ingest.digest, known)
        except BaseException:
            with suppress(OSError):  # what is still to be written is not wanted, and the disk may be full
                ingest.file.close()
            if os.path.exists(path):
                os.unlink(path)
            raise
        ingest.file.close()

    def _sync_name(self, digest: str, known: bool) -> None:
        """Sync a blob's name; on an error a new name is removed."""
        try:
            _sync_directory(self._blobs)
        except OSError:
            if not known:
                os.unlink(self.path(digest))
            raise

    def partial(self, digest: str) -> Partial:
        """The partial download of a blob; the caller closes it."""
        self._have_folders()
        return Partial(self._ingest, digest, self.path(digest))

    def temporary(self) -> str:
        """A path for a file that `adopt` will make a blob; the next start removes leftovers."""
        self._have_folders()
        return os.path.join(self._ingest, secrets.token_hex(8))

    @staticmethod
    def digest_of(path: str) -> str:
        """The digest of a file."""
        with open(path, "rb") as f:
            return "sha256:" + hashlib.file_digest(f, "sha256").hexdigest()

    def adopt(self, path: str, digest: str) -> None:
        """Make a file at a `temporary` path the blob of its digest; durable with the next ``sync``."""
        failpoint("image.file-arrived")
        os.rename(path, self.path(digest))

    def sync(self) -> None:
        """Sync everything written (the whole file system: one call for many blobs and layers).

        OSError when something has not reached it, of this caller's or of another's: the next call does not tell.
        """
        failpoint("image.sync")
        syncfs(self._fd)

    def put(self, data: bytes, *, hold: Callable[[str], None] | None = None, durable: bool = True) -> str:
        """Store bytes; returns their digest.  Storing an existing blob is cheap."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if hold is not None:
            hold(digest)
        if not self.exists(digest):
            with self.ingest(digest, durable=durable) as ingest:
                ingest.write(data)
        return digest

    def remove(self, digest: str) -> None:
        """Delete a blob; a missing one is no error."""
        path = self.path(digest)
        if os.path.exists(path):
            os.unlink(path)

    def all(self) -> list[str]:
        """The digests of all blobs."""
        self._have_folders()
        return ["sha256:" + name for name in os.listdir(self._blobs) if is_ours(name)]

    def write_index(self, data: bytes) -> None:
        """Replace ``index.json`` atomically (not durably: it is derived, and written anew at each start).

        A failure is logged: on a full disk removing an image must not fail for want of space.
        """
        try:
            self._replace("index.json", data)
        except OSError as e:
            log.warning("write `%s`: %s; it is written with the next change", self.root + "/index.json", e.strerror)
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.root, "index.json.new"))

    def _replace(self, name: str, data: bytes) -> None:
        path = os.path.join(self.root, name)
        with open(path + ".new", "wb") as f:
            f.write(data)
        os.rename(path + ".new", path)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
