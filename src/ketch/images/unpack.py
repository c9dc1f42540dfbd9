"""Unpacking of a layer: from its blob, or from a stream that is stored as a blob on the way."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

from ketch.errors import InvalidArgument
from ketch.storage.archive import compression
from ketch.storage.archive.gzipwriter import GzipWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.images.store import ImageStore
    from ketch.storage.archive.tar import Source
    from ketch.storage.content.leases import Lease

_BUFFER = 1 << 20


class Hashing(io.RawIOBase):
    """Passes reads through, hashing and counting; ``sink`` gets every chunk as well."""

    def __init__(self, source: Source, sink: Callable[[bytes], object] | None = None) -> None:
        self._source = source
        self._sink = sink
        self._hash = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        if data:
            self._hash.update(data)
            self.size += len(data)
            if self._sink is not None:
                self._sink(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def drain(self) -> None:
        """Read to the end (a tar has padding behind its last member)."""
        while self.read(_BUFFER):
            pass

    @property
    def digest(self) -> str:
        """The digest of the bytes read so far."""
        return "sha256:" + self._hash.hexdigest()


def unpack_blob(store: ImageStore, blob: str, diff_id: str, chain_id: str) -> int:
    """Unpack a layer's blob under its chain id (held by the caller); returns the bytes of its files.

    InvalidArgument when the content is not what ``diff_id`` promises; then nothing stays.
    """
    path = store.layers.begin()
    try:
        size = store.content.size(blob)
        job = store.unpacker.begin(store.content.path(blob), store.layers.files(path), blob, size)
        done = job.future.result()
        check(blob, done.diff_id, diff_id)
        store.layers.commit(path, chain_id)
    except BaseException:
        store.layers.abort(path)
        raise
    return done.size


def diff_id_of(store: ImageStore, blob: str) -> str:
    """The digest of a blob's plain tar (InvalidArgument when it cannot be read to its end)."""
    with open(store.content.path(blob), "rb") as f, compression.reader(f, f"layer {blob}") as plain:
        hashing = Hashing(plain)
        hashing.drain()
    return hashing.digest


def check(blob: str, found: str, promised: str) -> None:
    """Raise InvalidArgument for a layer whose diff id is not that of the configuration."""
    if found != promised:
        raise InvalidArgument(f"unpack layer {blob}: its content is {found}, the image says {promised}")


def receive_layer(store: ImageStore, lease: Lease, source: Source, what: str) -> tuple[str, str, int]:
    """Store and unpack the lowest layer of a new image from a tar stream in one pass.

    Returns (blob digest, diff id, bytes of files).  A gzip or zstd stream is kept as it came, others are gzipped.
    """
    path = store.layers.begin()
    try:
        with store.content.ingest(hold=lease.hold, durable=False) as ingest:
            peekable = compression.Peekable(source)
            keep = compression.kind(peekable.peek(6)) in ("gzip", "zstd")
            outer: Any = Hashing(peekable, ingest.write) if keep else peekable
            writer = None if keep else GzipWriter(ingest.write)
            with compression.reader(outer, what) as plain:
                hashing = Hashing(plain, writer.write if writer else None)
                size = store.layers.unpack(path, hashing)
                hashing.drain()
            if keep:
                outer.drain()
            if writer is not None:
                writer.finish()
        lease.hold(hashing.digest)
        store.layers.commit(path, hashing.digest)  # the lowest layer's chain id is its diff id
    except BaseException:
        store.layers.abort(path)
        raise
    return ingest.digest, hashing.digest, size
