"""Layers of exchanged caches: brought here when a result is used, and given away as blobs."""

from __future__ import annotations

import asyncio
from typing import IO, TYPE_CHECKING

from ketch.build.cache.exchange.imports import CachedLayer
from ketch.build.tree import Tree
from ketch.images.made.image import layer_facts
from ketch.oci import digest as digests
from ketch.oci import manifest as oci
from ketch.storage.archive import compression
from ketch.storage.layers import packed, tars
from ketch.storage.snapshots.overlay import check_depth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.build.operation import Work
    from ketch.engine.build.caches.places import CachePlaceReader
    from ketch.images.made.image import ImageLayer
    from ketch.images.store import ImageStore
    from ketch.storage.archive.packing import Compression, Write
    from ketch.storage.content.leases import Lease

_CHUNK = 1 << 20


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
    """The blobs of layers of this machine, which a lease holds.  Blocking.

    Layers that have none are compressed; with ``force`` those that have one in another compression, too.  What has been
    compressed once is known by its digest, and compressed again only for a place that lacks it.
    """

    def __init__(self, store: ImageStore, lease: Lease, compression: Compression, *, force: bool = False) -> None:
        self._store, self._lease, self._compression, self._force = store, lease, compression, force
        self._found: dict[str, CachedLayer] = {}
        self._sources: dict[str, tuple[str, ImageLayer]] = {}  # by digests of blobs to be made: what they are made of

    def of(self, layers: Sequence[str]) -> dict[str, CachedLayer]:
        """Layers as blobs, by their ids (DataLoss: one is gone)."""
        self._lease.hold(*layers)
        fresh = [layer for layer in layers if layer not in self._found]
        for layer, facts in zip(fresh, layer_facts(self._store, self._lease, fresh), strict=True):
            self._found[layer] = CachedLayer(self._described(layer, facts), facts.diff_id)
        return {layer: self._found[layer] for layer in layers}

    def opener(self, descriptor: oci.Descriptor) -> Callable[[], IO[bytes]]:
        """A function that opens a blob that `of` gave (DataLoss: it cannot be made again)."""
        return lambda: self._opened(descriptor.digest)

    def _opened(self, digest: str) -> IO[bytes]:
        content = self._store.content
        if not content.exists(digest) and digest in self._sources:
            layer, facts = self._sources[digest]
            with content.ingest(digest, hold=self._lease.hold, durable=False) as ingest:
                self._pack(layer, facts, ingest.write)
        return content.open(digest)

    def _described(self, layer: str, facts: ImageLayer) -> oci.Descriptor:
        plain = facts.descriptor.media_type == oci.LAYER
        wanted = self._compression.media_type
        if facts.descriptor.media_type == wanted or not (plain or self._force):
            if plain:
                self._sources[facts.descriptor.digest] = layer, facts
            return facts.descriptor
        layers, name = self._store.layers, self._compression.name()
        found = packed.known(layers, layer, name)
        if found is None:
            with self._store.content.ingest(hold=self._lease.hold, durable=False) as ingest:
                self._pack(layer, facts, ingest.write)
            found = packed.PackedFacts(digest=ingest.digest, size=ingest.size)
            packed.keep(layers, layer, name, found)
        self._sources[found.digest] = layer, facts
        return oci.Descriptor(media_type=wanted, digest=found.digest, size=found.size)

    def _pack(self, layer: str, facts: ImageLayer, write: Write) -> None:
        """Write a layer's tar, compressed."""
        content, blob = self._store.content, facts.descriptor.digest
        packer = self._compression.packer(write)
        if content.exists(blob):
            with content.open(blob) as file, compression.reader(file, f"layer {blob}") as plain:
                while data := plain.read(_CHUNK):
                    packer.write(data)
        else:
            tars.write(self._store.layers, layer, facts.diff_id, packer.write)
        packer.finish()
