"""Garbage collection of images' content: blobs and layers that no image, no name and no lease needs are deleted."""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING

from ketch.errors import DataLoss
from ketch.failpoints import failpoint
from ketch.storage.content.leases import Leases
from ketch.storage.database.removals import Removals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Set
    from contextlib import AbstractContextManager
    from sqlite3 import Connection

    from ketch.images.repository import ImageRepository
    from ketch.storage.content.leases import Lease
    from ketch.storage.content.store import ContentStore
    from ketch.storage.database.db import Database
    from ketch.storage.layers.store import Layers
    from ketch.storage.lost import Lost

    Later = Callable[[Callable[[], None]], object]


_AGAIN = "see the kernel's log, and bring the image again when the disk works"


class GarbageCollector:
    """The collector, which runs under the repository's lock; ``later`` deletes unlinked files."""

    def __init__(
        self, db: Database, repository: ImageRepository, content: ContentStore, layers: Layers, later: Later
    ) -> None:
        self._repository = repository
        self._content = content
        self._layers = layers
        self._later = later
        self._syncing = threading.Lock()
        self._leases = Leases(repository.lock, os.path.join(content.root, "leases"))
        self._removals = Removals(db, "sha256:")

    def lease(self) -> AbstractContextManager[Lease]:
        """A lease for new content; at its end the content that no image needs is deleted."""
        return self._leases.take(self.collect)

    def sync(self, names: Set[str]) -> None:
        """Sync leased content to the disk (DataLoss: a write error may have hit these blobs and layers).

        The kernel tells of that once, and not what it was: none of the work that is under way relies on its content.
        """
        with self._syncing:
            try:
                self._content.sync()
            except OSError as e:
                self._leases.spoil()
                raise DataLoss(f"bring the content of images to the disk: {e.strerror}", hint=_AGAIN) from e
            if not self._leases.spoiled().isdisjoint(names):
                raise DataLoss("bring the content of images to the disk: it may not have reached it", hint=_AGAIN)

    def mark_for_removal(self, tx: Connection, names: set[str]) -> None:
        """Mark blobs and layers for removal, in the transaction that deletes their last name."""
        self._removals.begin(tx, (name.removeprefix("sha256:") for name in names))

    def collect(self, candidates: set[str]) -> set[str]:
        """Delete those blobs and layers that no image and no lease needs; returns the layers' chain ids."""
        with self._repository.lock:
            if self._repository.unreadable:
                return set()  # nobody knows what they need
            unneeded = self.unneeded(candidates)
            directories = {name: self._layers.detach(name) for name in unneeded}
            for name in unneeded:
                self._content.remove(name)
            failpoint("image.content-unnamed")
            self._removals.end(name.removeprefix("sha256:") for name in candidates)
        for directory in filter(None, directories.values()):
            self._later(functools.partial(self._layers.abort, directory))
        return {name for name, directory in directories.items() if directory}

    def unneeded(self, candidates: set[str], without: Collection[str] = ()) -> set[str]:
        """The blobs and layers that no lease holds and no name or image needs; images ``without`` are ignored."""
        catalog = self._repository.catalog
        kept = (image.parts() for image in catalog.images.values() if image.id not in without)
        targets = {named.target for named in catalog.names.values()}
        return candidates - self._leases.held().union(targets, *kept)

    def sweep(self, lost: Lost) -> None:
        """Delete, at a start, the content of interrupted work and removals; move unknown content to ``lost/``."""
        for directory in self._layers.unfinished():
            self._later(functools.partial(self._layers.abort, directory))
        certain = self._leases.abandoned() | {f"sha256:{name}" for name in self._removals.pending()}
        self.collect(certain & {*self._content.all(), *self._layers.all()})
        if self._repository.unreadable:
            return
        self._removals.end(self._removals.pending())
        self._leases.forget_abandoned()
        for digest in self.unneeded(set(self._content.all())):
            lost.put("blobs", self._content.path(digest))
        for chain in self.unneeded(set(self._layers.all())):
            lost.put("layers", os.path.dirname(self._layers.diff(chain)))
