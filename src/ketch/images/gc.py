"""Garbage collection of images' content: blobs and layers that no image, no name and no lease needs are deleted.

Others may need layers, too (those of a build cache).  A layer to which links lead stays until the last of them goes.
"""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING

from ketch.errors import DataLoss
from ketch.failpoints import failpoint
from ketch.storage.content.leases import Leases
from ketch.storage.database.removals import Removals
from ketch.storage.layers.store import is_built

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
    Others = Callable[[], Set[str]]


_AGAIN = "see the kernel's log, and bring the image again when the disk works"


class GarbageCollector:
    """The collector, which runs under the repository's lock.

    ``later`` deletes unlinked files; ``others`` gives the names of blobs and layers that something else needs.
    """

    def __init__(
        self,
        db: Database,
        repository: ImageRepository,
        content: ContentStore,
        layers: Layers,
        later: Later,
        others: Others,
    ) -> None:
        self._others = others
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
        targets = {layer for name in names if (layer := self._layers.target(name)) is not None}
        self._removals.begin(tx, (name.removeprefix("sha256:") for name in names | targets))

    def collect(self, candidates: set[str]) -> set[str]:
        """Delete those blobs and layers that no image and no lease needs; returns the layers' ids."""
        with self._repository.lock:
            if self._repository.unreadable:
                return set()  # nobody knows what they need
            candidates = candidates | self._forget_bases()
            unneeded = self.unneeded(candidates)
            links = {name: layer for name in unneeded if (layer := self._layers.unlink(name)) is not None}
            failpoint("image.layers-unlinked")
            going = self._unlinked((unneeded - links.keys()) | self.unneeded({*links.values()}))
            directories = {name: self._layers.detach(name) for name in going}
            for name in unneeded:
                self._content.remove(name)
            failpoint("image.content-unnamed")
            self._removals.end(name.removeprefix("sha256:") for name in candidates.union(links.values()))
        for directory in filter(None, directories.values()):
            self._later(functools.partial(self._layers.abort, directory))
        return links.keys() | {name for name, directory in directories.items() if directory}

    def held(self, layer: str) -> bool:
        """Whether a lease holds a layer."""
        return layer in self._leases.held()

    def take(self, layer: str, lease: Lease) -> str | None:
        """Reopen a layer that was made here (`Layers.reopen`), if nobody needs it but that lease; else None."""
        parts = lease.parts()
        with self._repository.lock:
            if self._repository.unreadable or not is_built(layer):
                return None
            if not self._unlinked(self.unneeded({layer}, leases=parts)):
                return None
            return self._layers.reopen(layer)

    def unneeded(self, candidates: set[str], without: Collection[str] = (), leases: Collection[Lease] = ()) -> set[str]:
        """The blobs and layers that no lease holds and no name or image needs.

        Images ``without``, and what the ``leases`` hold, are ignored.
        """
        if not candidates:
            return set()
        catalog = self._repository.catalog
        kept = (image.parts() for image in catalog.images.values() if image.id not in without)
        targets = {named.target for named in catalog.names.values()}
        attested = map(catalog.attestations, catalog.attested)
        return candidates - self._leases.held(leases).union(targets, self._others(), *attested, *kept)

    def _forget_bases(self) -> set[str]:
        """Delete the rows of base images that builds do not need any more; returns their blobs and layers."""
        catalog = self._repository.catalog
        bases = [image for image in catalog.images.values() if image.base]
        if not bases:
            return set()
        built = (image.chain_ids for image in catalog.images.values() if not image.base)
        needed = self._leases.held().union(self._others(), *built)
        gone = {image.id: image for image in bases if needed.isdisjoint(image.chain_ids[-1:])}
        parts = {part for image in gone.values() for part in image.parts()}
        if gone:
            with self._repository.transaction() as tx:
                self._repository.delete(tx, (), gone)
                self.mark_for_removal(tx, parts)
            kept = {image_id: image for image_id, image in catalog.images.items() if image_id not in gone}
            self._repository.show(kept, dict(catalog.names))
        return parts

    def _unlinked(self, layers: set[str]) -> set[str]:
        """The layers among these to which no link leads."""
        return layers.difference(self._layers.links().values()) if layers else layers

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
        self._sweep_layers(lost)

    def _sweep_layers(self, lost: Lost) -> None:
        """Move layers that have lost their images to ``lost/``; those made here that were in none are deleted."""
        unneeded = self.unneeded(set(self._layers.all()))
        links = self._layers.links()
        kept = {layer for chain, layer in links.items() if chain not in unneeded}
        of_images = {layer for chain, layer in links.items() if chain in unneeded}
        unneeded -= kept
        for layer in sorted(unneeded):
            if not is_built(layer) or layer in of_images:
                lost.put("layers", self._layers.path(layer))
        self.collect({layer for layer in unneeded if is_built(layer)} - of_images)
