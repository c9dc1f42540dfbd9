"""Compression of an image whose layers are plain tars, for a push or as a build asks for it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ketch.images.assembly import descriptor_of, write_manifest
from ketch.images.made.blobs import ImageBlobs
from ketch.images.progress import Meter, short
from ketch.oci import manifest as oci
from ketch.storage.archive import compression
from ketch.storage.archive.packing import Compression

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.images.model import Image
    from ketch.images.progress import Report
    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease

_CHUNK = 1 << 20


class LayerCompression(Struct, frozen=True):
    """The compression of an image's layers: of those without one, or with ``force`` of all."""

    compression: Compression = Compression()
    force: bool = False


def compressed(
    store: ImageStore,
    lease: Lease,
    image: Image,
    target: str,
    report: Report,
    how: LayerCompression = LayerCompression(),  # noqa: B008 - it is frozen
) -> Image | None:
    """The image with its plain layers compressed, and its new manifest; None for a manifest not made here.

    Blocking.  A manifest that came with the image is what others know it by, and stays as it is.  The same tar gives
    the same bytes each time; what another form of the image has compressed is not compressed again.
    """
    manifest = msgspec.json.decode(store.content.read(target), type=oci.Manifest)
    wanted = how.compression.media_type
    others = {
        layer.digest: layer
        for layer in manifest.layers
        if layer.media_type != wanted and (how.force or layer.media_type == oci.LAYER)
    }
    notes = manifest.annotations
    if not others or write_manifest(store.content, lease, image.id, manifest.layers, notes) != target:
        return None
    blobs = ImageBlobs(store, [image])
    made: dict[str, str] = {}
    if how.compression.level < 0:
        found = {digest: _known(store, image, target, digest, wanted) for digest in others}
        made = {digest: blob for digest, blob in found.items() if blob is not None}

    def compress(layer: oci.Descriptor) -> None:
        meter = Meter(report, short(layer.digest), "Compressing", layer.size)
        with store.content.ingest(hold=lease.hold, durable=False) as ingest:
            packer = how.compression.packer(ingest.write)
            done = 0

            def take(data: bytes | memoryview) -> None:
                nonlocal done
                done += packer.write(data)
                meter.at(min(done, layer.size))

            _unpacked(blobs, layer, take)
            packer.finish()
        made[layer.digest] = ingest.digest

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(compress, [layer for layer in others.values() if layer.digest not in made]))
    layers = [
        descriptor_of(store.content, made[layer.digest]) if layer.digest in made else layer for layer in manifest.layers
    ]
    digest = write_manifest(store.content, lease, image.id, layers, notes)
    return msgspec.structs.replace(image, blobs=[layer.digest for layer in layers], manifest=digest)


def _unpacked(blobs: ImageBlobs, layer: oci.Descriptor, take: Callable[[bytes | memoryview], None]) -> None:
    """Write a layer's tar (NotFound, DataLoss)."""
    if layer.media_type == oci.LAYER:
        blobs.write(layer.digest, take)
        return
    with blobs.open(layer.digest) as file, compression.reader(file, f"layer {layer.digest}") as plain:
        while data := plain.read(_CHUNK):
            take(data)


def _known(store: ImageStore, image: Image, target: str, digest: str, media_type: str) -> str | None:
    """The blob of a layer in another form of the image, with that compression."""
    at = image.blobs_of(target).index(digest)
    for manifest in (image.manifest, *image.forms):
        blob = image.blobs_of(manifest)[at]
        if store.content.exists(blob) and descriptor_of(store.content, blob).media_type == media_type:
            return blob
    return None
