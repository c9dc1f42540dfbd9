"""Leases: what work in progress relies on is not garbage, although no image names it yet.

A load or an import takes a lease, holds every blob and layer in it *before* looking whether that is here,
and ends the lease when the image is recorded or the work has failed.  Only then, and only what no image and no
other lease needs, is deleted; so failed work leaves nothing behind, whatever it had done.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class Lease:
    """Digests of blobs and chain ids of layers, held until the lease ends."""

    def __init__(self, lock: AbstractContextManager[bool]) -> None:
        self._lock = lock
        self.names: set[str] = set()

    def hold(self, *names: str) -> None:
        """Keep these; waits while a collection is under way, so that what is here afterwards stays."""
        with self._lock:
            self.names.update(names)


class Leases:
    """The leases of one store; ``lock`` is the one under which the store collects."""

    def __init__(self, lock: AbstractContextManager[bool]) -> None:
        self._lock = lock
        self._active: list[Lease] = []

    @contextmanager
    def take(self, ended: Callable[[set[str]], object]) -> Iterator[Lease]:
        """A lease for the block; ``ended`` is called with all that it held, once it holds nothing."""
        lease = Lease(self._lock)
        with self._lock:
            self._active.append(lease)
        try:
            yield lease
        finally:
            with self._lock:
                self._active.remove(lease)
            ended(lease.names)

    def held(self) -> set[str]:
        """All that any lease holds."""
        with self._lock:
            return set().union(*(lease.names for lease in self._active))
