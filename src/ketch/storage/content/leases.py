"""Leases: they protect the content of work in progress from garbage collection.

A load or an import takes a lease, holds every blob and layer in it *before* looking whether that is here,
and ends the lease when the image is recorded or the work has failed.  Only then, and only what no image and no
other lease needs, is deleted; so failed work leaves nothing behind, whatever it had done.

    content/leases/<random>      the names that one lease holds, a line each, as long as it lasts

A file that is there at a start is of work that died: what it names and no image needs is garbage, for certain.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from contextlib import AbstractContextManager


class Lease:
    """Digests of blobs and chain ids of layers, held until the lease ends."""

    _over = False

    def __init__(self, lock: AbstractContextManager[bool], path: str) -> None:
        self._lock = lock
        self.path = path
        self.names: set[str] = set()
        self.spoiled = False

    def break_off(self) -> None:
        """Make the work that it is for end at its next `check`; so does the lease's own end."""
        self._over = True

    def check(self) -> None:
        """Raise Unavailable when the work is to end; to be called in long blocking work, from any thread."""
        if self._over:
            raise Unavailable("the work was cancelled")

    def parts(self) -> Sequence[Lease]:
        """The leases that this one consists of: itself."""
        return (self,)

    def hold(self, *names: str) -> None:
        """Hold content; waits for a collection under way, so that content that exists afterwards stays."""
        with self._lock:
            if fresh := set(names) - self.names:
                _append(self.path, fresh)
                self.names.update(fresh)


def _append(path: str, names: set[str]) -> None:
    """Append to the lease's file; on a full disk, content after a crash is moved to ``lost/``, not deleted."""
    text = "".join(f"{name}\n" for name in sorted(names)).encode()
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)


class Leases:
    """The leases of one store; ``lock`` is the one under which it collects, ``directory`` has the leases' files."""

    def __init__(self, lock: AbstractContextManager[bool], directory: str) -> None:
        self._lock = lock
        self._directory = directory
        self._active: list[Lease] = []
        os.makedirs(directory, mode=0o700, exist_ok=True)

    @contextmanager
    def take(self, ended: Callable[[set[str]], object]) -> Iterator[Lease]:
        """A lease as a context; ``ended`` is called at its end with everything that it held."""
        lease = Lease(self._lock, os.path.join(self._directory, secrets.token_hex(8)))
        with self._lock:
            self._active.append(lease)
        try:
            yield lease
        finally:
            lease.break_off()
            with self._lock:
                self._active.remove(lease)
            ended(lease.names)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(lease.path)

    def abandoned(self) -> set[str]:
        """The content of leases whose process died; to be called before the first `take`."""
        found: set[str] = set()
        for name in os.listdir(self._directory):
            with open(os.path.join(self._directory, name), encoding="utf-8", errors="replace") as f:
                found.update(f.read().splitlines())
        return found

    def forget_abandoned(self) -> None:
        """Remove the files of those leases."""
        for name in os.listdir(self._directory):
            os.unlink(os.path.join(self._directory, name))

    def spoil(self) -> None:
        """Mark all held content as possibly not written to the disk."""
        with self._lock:
            for lease in self._active:
                lease.spoiled = True

    def spoiled(self) -> set[str]:
        """The content that is possibly not written to the disk."""
        with self._lock:
            return set().union(*(lease.names for lease in self._active if lease.spoiled))

    def held(self, but: Collection[Lease] = ()) -> set[str]:
        """The content of all leases, or of all others."""
        with self._lock:
            return set().union(*(lease.names for lease in self._active if lease not in but))
