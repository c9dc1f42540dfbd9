"""Layers for builds: written, looked at, and shown as whole trees."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ketch import trees
from ketch.runtime.rootfs import overlay
from ketch.storage import removal
from ketch.storage.layers import tars
from ketch.storage.layers.draft import BuiltLayerDraft
from ketch.storage.sizes import written_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from contextlib import AbstractContextManager

    from ketch.build.tree import Tree
    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease
    from ketch.storage.snapshots.overlay import Snapshots


class EngineBuildSnapshots:
    """The layers of the image store, as builds use them (`build.providers.BuildSnapshots`)."""

    def __init__(self, images: ImageStore, snapshots: Snapshots) -> None:
        self._images, self._snapshots = images, snapshots

    def lease(self) -> AbstractContextManager[Lease]:
        """A lease; at its end what nothing else needs is removed."""
        return self._images.lease()

    def begin(self, lease: Lease) -> BuiltLayerDraft:
        """A new, empty layer."""
        return BuiltLayerDraft(self._images.layers, lease)

    def held(self, layer: str) -> bool:
        """Whether a lease holds a layer."""
        return self._images.layer_held(layer)

    def resume(self, layer: str, lease: Lease) -> BuiltLayerDraft | None:
        """A layer that was made here as one that is being written; None: somebody else than the lease needs it."""
        path = self._images.take_layer(layer, lease)
        return None if path is None else BuiltLayerDraft(self._images.layers, lease, path)

    def exists(self, layer: str) -> bool:
        """Whether a layer is here."""
        return self._images.layers.exists(layer)

    def sync(self, layers: Collection[str]) -> None:
        """Bring layers to the disk (DataLoss: a write error may have hit them)."""
        self._images.sync(set(layers))

    def directory(self, layer: str) -> str:
        """The directory of a layer's own files (DataLoss)."""
        return self._images.layers.directories([layer])[0]

    @contextmanager
    def opened(self, tree: Tree) -> Iterator[int]:
        """A descriptor of the whole tree, read-only, of a mount that is in no directory (DataLoss)."""
        with ExitStack() as stack:
            if not tree.layers:
                fd = self._empty()
            else:
                options = [*self._snapshots.view(tree.layers), "nodev", "nosuid", "noexec"]
                mount_fd = overlay.open_overlay(options)
                stack.callback(os.close, mount_fd)
                fd = os.open(".", trees.DIRECTORY, dir_fd=mount_fd)
            stack.callback(os.close, fd)
            yield fd

    def _empty(self) -> int:
        """A descriptor of an empty directory, which is nowhere any more."""
        path = self._images.layers.begin()
        try:
            return os.open(self._images.layers.files(path), trees.DIRECTORY)
        finally:
            removal.remove_tree(path)

    def size(self, layer: str) -> int:
        """The bytes of a layer's files."""
        if (known := self._images.layer_sizes().get(layer)) is not None:
            return known
        made = tars.known(self._images.layers, layer)
        return written_bytes(self.directory(layer)) if made is None else made.files
