"""Partial downloads: the beginning of a blob is kept for the next attempt.

    content/ingest/<hex>.part        its name is the digest that it shall have

A download that was broken off, cancelled, or killed with the daemon goes on where the file ends.  What is in the file
is hashed again when it is opened, so that a file that a power cut has damaged is found out at the latest at its end.
Blocking; one at a time may have a digest's file open.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from errno import EDQUOT, ENOSPC
from typing import IO

from ketch.errors import InvalidArgument, ResourceExhausted
from ketch.failpoints import failpoint

SUFFIX = ".part"
_KEPT_S = 7 * 24 * 3600
_BUFFER = 1 << 20


class Partial:
    """The partial download of one blob; ``close`` keeps it, ``commit`` makes it a blob."""

    def __init__(self, ingest_root: str, digest: str, target: str) -> None:
        """``target`` is the path of the whole blob."""
        self.digest = digest
        self.path = os.path.join(ingest_root, digest.removeprefix("sha256:") + SUFFIX)
        self._target = target
        self._file: IO[bytes] = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - closed by `close`
        self._lock = threading.Lock()  # a writer that was cancelled may be in a thread still when `close` comes
        self._hash = hashlib.sha256()
        self.size = 0
        try:
            self._file.seek(0)
            while data := self._file.read(_BUFFER):
                self._hash.update(data)
                self.size += len(data)
        except BaseException:
            self._file.close()
            raise

    def write(self, data: bytes | memoryview) -> None:
        """Append (ResourceExhausted: a full disk; the part that fitted stays)."""
        try:
            failpoint("pull.write")
            with self._lock:
                self._append(memoryview(data))
        except OSError as e:
            if e.errno in (ENOSPC, EDQUOT):
                raise ResourceExhausted(
                    f"write blob {self.digest}: no space left on device",
                    hint="make room (docker image prune also removes broken-off downloads); the next pull goes on here",
                ) from e
            raise

    def _append(self, view: memoryview) -> None:
        while view and not self._file.closed:
            done = self._file.write(view)
            self._hash.update(view[:done])
            self.size += done
            view = view[done:]

    @property
    def whole(self) -> bool:
        """Whether the data is the whole blob, whatever the announced size."""
        return "sha256:" + self._hash.hexdigest() == self.digest

    def restart(self) -> None:
        """Discard the data."""
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.size = 0

    def commit(self) -> None:
        """Make it a blob, durable with the next ``ContentStore.sync``.

        InvalidArgument when its content has another digest; then it is gone.
        """
        found = "sha256:" + self._hash.hexdigest()
        if found != self.digest:
            self.discard()
            raise InvalidArgument(f"filesystem layer verification failed for digest {self.digest}: got {found}")
        failpoint("pull.blob-verified")
        os.rename(self.path, self._target)
        failpoint("pull.blob-named")
        self.close()

    def discard(self) -> None:
        """Remove the partial download."""
        os.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Close and keep the partial download, unless it is empty."""
        with self._lock:
            if not self._file.closed:
                if not self.size and os.path.exists(self.path):
                    os.unlink(self.path)
                self._file.close()


def sweep(root: str, kept_s: float = _KEPT_S, held: frozenset[str] = frozenset()) -> int:
    """Remove partial downloads that have not grown for that time; returns the bytes.

    Files with another suffix are of an earlier process, and go at once; digests that are ``held`` stay.
    """
    freed = 0
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if name.endswith(SUFFIX):
            status = os.stat(path)
            if "sha256:" + name.removesuffix(SUFFIX) in held or time.time() - status.st_mtime < kept_s:
                continue
            freed += status.st_size
        os.unlink(path)
    return freed
