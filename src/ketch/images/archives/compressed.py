"""Compression of an image whose layers are plain tars, for a push."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from ketch.images.assembly import descriptor_of, write_manifest
from ketch.images.made.blobs import ImageBlobs
from ketch.images.progress import Meter, short
from ketch.oci import manifest as oci
from ketch.storage.archive.gzipwriter import GzipWriter

if TYPE_CHECKING:
    from ketch.images.model import Image
    from ketch.images.progress import Report
    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease


def compressed(store: ImageStore, lease: Lease, image: Image, target: str, report: Report) -> Image | None:
    """The image with its plain layers gzipped, and its new manifest; None for a manifest not made here.

    Blocking.  A manifest that came with the image is what others know it by, and stays as it is.  The same tar gives
    the same bytes each time; what another form of the image has compressed is not compressed again.
    """
    manifest = msgspec.json.decode(store.content.read(target), type=oci.Manifest)
    plain = {layer.digest: layer for layer in manifest.layers if layer.media_type == oci.LAYER}
    notes = manifest.annotations
    if not plain or write_manifest(store.content, lease, image.id, manifest.layers, notes) != target:
        return None
    blobs = ImageBlobs(store, [image])
    made = {digest: found for digest in plain if (found := _known(store, image, target, digest)) is not None}

    def compress(layer: oci.Descriptor) -> None:
        meter = Meter(report, short(layer.digest), "Compressing", layer.size)
        with store.content.ingest(hold=lease.hold, durable=False) as ingest:
            zipped = GzipWriter(ingest.write)
            done = 0

            def take(data: bytes | memoryview) -> None:
                nonlocal done
                done += zipped.write(data)
                meter.at(done)

            blobs.write(layer.digest, take)
            zipped.finish()
        made[layer.digest] = ingest.digest

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(compress, [layer for layer in plain.values() if layer.digest not in made]))
    layers = [
        descriptor_of(store.content, made[layer.digest]) if layer.digest in made else layer for layer in manifest.layers
    ]
    digest = write_manifest(store.content, lease, image.id, layers, notes)
    return msgspec.structs.replace(image, blobs=[layer.digest for layer in layers], manifest=digest)


def _known(store: ImageStore, image: Image, target: str, plain: str) -> str | None:
    """The gzipped blob of a plain layer in another form of the image."""
    at = image.blobs_of(target).index(plain)
    for manifest in (image.manifest, *image.forms):
        blob = image.blobs_of(manifest)[at]
        if store.content.exists(blob) and descriptor_of(store.content, blob).media_type == oci.LAYER_GZIP:
            return blob
    return None
