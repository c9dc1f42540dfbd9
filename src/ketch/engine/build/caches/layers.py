"""Layers of exchanged caches: brought here when a result is used, and given away as blobs."""

from __future__ import annotations

import asyncio
from typing import IO, TYPE_CHECKING

from ketch.build.cache.exchange.imports import CachedLayer
from ketch.build.tree import Tree
from ketch.images.made.image import layer_facts
from ketch.oci import digest as digests
from ketch.oci import manifest as oci
from ketch.storage.archive.gzipwriter import GzipWriter
from ketch.storage.layers import tars
from ketch.storage.snapshots.overlay import check_depth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.build.operation import Work
    from ketch.engine.build.caches.places import CachePlaceReader
    from ketch.images.made.image import ImageLayer
    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease


class PlaceLoader:
    """The loader of the layers of a cache at one place (`build.cache.exchange.imports.LayerLoader`)."""

    def __init__(self, store: ImageStore, place: CachePlaceReader) -> None:
        self._store, self._place = store, place

    async def load(self, layers: Sequence[CachedLayer], work: Work) -> Tree:
        """Fetch and unpack layers, lowest first, unless they are here; the work's lease holds them (KetchError)."""
        check_depth(len(layers))
        chains = digests.chain_ids([layer.diff_id for layer in layers])
        work.lease.hold(*chains, *(layer.descriptor.digest for layer in layers))
        missing = [pair for pair in zip(layers, chains, strict=True) if not self._store.layers.exists(pair[1])]
        tasks = [asyncio.create_task(self._bring(layer, chain, work)) for layer, chain in missing]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        return Tree(tuple(chains))

    async def _bring(self, layer: CachedLayer, chain: str, work: Work) -> None:
        name, size = layer.descriptor.digest, layer.descriptor.size
        work.log.status(name, 0, size)
        await self._place.bring(layer, chain)
        work.log.status(name, size, size, done=True)


class LayerBlobs:
    """The blobs of layers of this machine, compressed where they are not, which a lease holds.  Blocking."""

    def __init__(self, store: ImageStore, lease: Lease, *, compressed: bool = True) -> None:
        self._store, self._lease, self._compressed = store, lease, compressed
        self._found: dict[str, CachedLayer] = {}
        self._plain: dict[str, str] = {}  # layers by the digests of their tars

    def of(self, layers: Sequence[str]) -> dict[str, CachedLayer]:
        """Layers as blobs, by their ids (DataLoss: one is gone)."""
        self._lease.hold(*layers)
        fresh = [layer for layer in layers if layer not in self._found]
        for layer, facts in zip(fresh, layer_facts(self._store, self._lease, fresh), strict=True):
            self._found[layer] = self._cached(layer, facts)
        return {layer: self._found[layer] for layer in layers}

    def opener(self, descriptor: oci.Descriptor) -> Callable[[], IO[bytes]]:
        """A function that opens a blob that `of` gave."""
        layer = self._plain.get(descriptor.digest)
        if layer is None or self._store.content.exists(descriptor.digest):
            return lambda: self._store.content.open(descriptor.digest)
        return lambda: self._written(layer, descriptor.digest)

    def _cached(self, layer: str, facts: ImageLayer) -> CachedLayer:
        descriptor = facts.descriptor
        if descriptor.media_type == oci.LAYER:
            self._plain[descriptor.digest] = layer
            if self._compressed:
                descriptor = self._zipped(layer, facts.diff_id)
        return CachedLayer(descriptor, facts.diff_id)

    def _zipped(self, layer: str, diff_id: str) -> oci.Descriptor:
        content = self._store.content
        with content.ingest(hold=self._lease.hold, durable=False) as ingest:
            writer = GzipWriter(ingest.write)
            if content.exists(diff_id):
                with content.open(diff_id) as file:
                    while data := file.read(1 << 20):
                        writer.write(data)
            else:
                tars.write(self._store.layers, layer, diff_id, writer.write)
            writer.finish()
        return oci.Descriptor(media_type=oci.LAYER_GZIP, digest=ingest.digest, size=ingest.size)

    def _written(self, layer: str, digest: str) -> IO[bytes]:
        """A plain tar as a blob of the store."""
        with self._store.content.ingest(digest, hold=self._lease.hold, durable=False) as ingest:
            tars.write(self._store.layers, layer, digest, ingest.write)
        return self._store.content.open(digest)
