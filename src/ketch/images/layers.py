"""Layers from a registry: their blobs into the content store, their files into the layer store, both at once."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, NamedTuple

from ketch.images.fetch import Arrived, Downloads
from ketch.images.progress import moving, short, status
from ketch.images.shared import Shared
from ketch.images.unpack import unpack_blob

if TYPE_CHECKING:
    from typing import Any

    from ketch.images.progress import Report
    from ketch.images.store import ImageStore
    from ketch.oci.manifest import Descriptor
    from ketch.remote.repository import Repository


class Layer(NamedTuple):
    """One layer of an image: its blob, the digest of its tar, and the name of its directory."""

    descriptor: Descriptor
    diff_id: str
    chain_id: str


class LayerService:
    """Brings layers for all pulls of one daemon; the same layer for several of them once."""

    def __init__(self, store: ImageStore, downloads: Downloads) -> None:
        self._store = store
        self.downloads = downloads
        self._shared: Shared[int] = Shared()
        self._sizes: dict[str, int] = {}  # of layers that are here and in no image yet

    async def bring(self, repository: Repository, layer: Layer, report: Report) -> int:
        """Bring and unpack a layer that the caller holds in a lease; returns the bytes of its files.

        Raises what `Downloads.fetch` does, and InvalidArgument for a blob that cannot be unpacked.
        """
        key = f"{layer.chain_id} {layer.descriptor.digest}"
        size = await self._shared.join(key, lambda tell: self._bring(repository, layer, tell), report)
        self._sizes[layer.chain_id] = size
        return size

    def forget(self, chain_ids: list[str]) -> None:
        """These are recorded with an image now, or have gone."""
        for chain in chain_ids:
            self._sizes.pop(chain, None)

    async def _bring(self, repository: Repository, layer: Layer, report: Report) -> int:
        ident = short(layer.descriptor.digest)
        unpacked = self._store.layers.exists(layer.chain_id)
        here = self._store.content.exists(layer.descriptor.digest)
        if unpacked and here:
            report(status(ident, "Already exists"))
            return await self._size(layer.chain_id)
        report(status(ident, "Pulling fs layer"))

        def tell(item: Any) -> None:
            if not isinstance(item, Arrived):
                report(item)

        if not here:
            await self.downloads.fetch(repository, layer.descriptor, tell)
        if unpacked:
            report(status(ident, "Pull complete"))
            return await self._size(layer.chain_id)
        total = layer.descriptor.size
        report(moving(ident, "Extracting", 0, total))
        size = await asyncio.to_thread(unpack_blob, self._store, layer.descriptor.digest, layer.diff_id, layer.chain_id)
        report(moving(ident, "Extracting", total, total))
        report(status(ident, "Pull complete"))
        return size

    async def _size(self, chain_id: str) -> int:
        known = self._sizes.get(chain_id, self._store.layer_sizes().get(chain_id))
        return known if known is not None else await asyncio.to_thread(tree_size, self._store.layers.diff(chain_id))


def tree_size(directory: str) -> int:
    """Bytes of the files below a directory."""
    total = 0
    for place, _, files in os.walk(directory):
        total += sum(os.lstat(os.path.join(place, name)).st_size for name in files)
    return total
