"""Streaming unpack of an archive's large files, before its manifest tells which of them are layers.

Overlay's layers do not depend on each other, so each goes into a directory of its own and gets its name when that is
known.  What turns out to be something else, or to be here already, is taken away again.  The process that unpacks also
finds out the file's digest: each byte is hashed once.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import InvalidArgument, KetchError
from ketch.images.unpack import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease
    from ketch.storage.layers.unpack_pool import Unpacked, Unpacking

LARGE = 1 << 20
_REPORT_EVERY = 1 << 20


class _File(NamedTuple):
    path: str
    directory: str
    job: Unpacking
    expected: str | None
    named: Callable[[str], None]


class StreamingUnpack:
    """The large files of one archive; leaving the context removes the layers that were not claimed."""

    def __init__(self, store: ImageStore, lease: Lease) -> None:
        self._store, self._lease = store, lease
        self._files: list[_File] = []
        self._unpacked: dict[str, tuple[str, Unpacked]] = {}  # blob → directory, what it is
        self._errors: dict[str, KetchError] = {}

    def __enter__(self) -> StreamingUnpack:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.job.abort()
            self._store.layers.abort(file.directory)
            if os.path.exists(file.path):
                os.unlink(file.path)
        for directory, _ in self._unpacked.values():
            self._store.layers.abort(directory)

    def take(self, chunks: Iterator[memoryview], size: int, expected: str | None, named: Callable[[str], None]) -> None:
        """Write a file and begin to unpack it; ``named`` is called with its digest at `wait`.

        ``expected`` is the digest that its name promises.
        """
        content, layers = self._store.content, self._store.layers
        path, directory = content.temporary(), layers.begin()
        try:
            with open(path, "xb", buffering=0) as target:
                job = self._store.unpacker.begin(path, layers.files(directory), "")
                self._files.append(_File(path, directory, job, expected, named))
                written = reported = 0
                for data in chunks:
                    view = data
                    while view:
                        view = view[target.write(view) :]
                    written += len(data)
                    if written - reported >= _REPORT_EVERY:
                        job.grown(written)
                        reported = written
                job.finish(size)
        except BaseException:
            if not self._files or self._files[-1].directory != directory:
                layers.abort(directory)
            raise

    def wait(self) -> None:
        """Wait until all are unpacked; the files are blobs then (InvalidArgument for a wrong digest)."""
        while self._files:
            file = self._files[0]
            try:
                done = file.job.future.result()
            except InvalidArgument as e:
                self._keep_blob(file, e)
            else:
                self._name(file, done.digest)
                old = self._unpacked.pop(done.digest, None)
                if old is not None:  # the same file twice
                    self._store.layers.abort(old[0])
                self._unpacked[done.digest] = (file.directory, done)
            self._files.pop(0)

    def _keep_blob(self, file: _File, error: KetchError) -> None:
        """Keep a file that is no layer as a blob; an error, if any, is reported later."""
        digest = self._store.content.digest_of(file.path)
        self._name(file, digest)
        self._errors[digest] = error
        self._store.layers.abort(file.directory)

    def _name(self, file: _File, digest: str) -> None:
        if file.expected is not None and digest != file.expected:
            raise InvalidArgument(f"write blob: expected {file.expected}, got {digest}")
        self._lease.hold(digest)
        self._store.content.adopt(file.path, digest)
        file.named(digest)

    def diff_id(self, blob: str) -> str | None:
        """The diff id of a blob that was unpacked; None for others (InvalidArgument: it could not be unpacked)."""
        if blob in self._errors:
            raise self._errors[blob]
        found = self._unpacked.get(blob)
        return found[1].diff_id if found else None

    def give(self, blob: str, diff_id: str, chain_id: str) -> int | None:
        """Store the layer of a blob under its chain id; returns the bytes of its files, None: to be unpacked anew.

        InvalidArgument for what could not be unpacked, or is not what the image's configuration says.
        """
        found = self.diff_id(blob)
        if found is None:
            return None
        check(blob, found, diff_id)
        directory, done = self._unpacked[blob]
        del self._unpacked[blob]
        try:
            self._store.layers.commit(directory, chain_id)
        except BaseException:
            self._store.layers.abort(directory)
            raise
        return done.size
