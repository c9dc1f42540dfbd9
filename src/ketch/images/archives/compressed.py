"""Compression of an image whose layers are plain tars, for a push."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from ketch.images.assembly import write_manifest
from ketch.images.progress import Meter, short
from ketch.oci import manifest as oci
from ketch.storage.archive.gzipwriter import GzipWriter

if TYPE_CHECKING:
    from ketch.images.model import Image
    from ketch.images.progress import Report
    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease

_CHUNK = 1 << 20


def compressed(store: ImageStore, lease: Lease, image: Image, target: str, report: Report) -> Image | None:
    """The image with its plain layers gzipped, and its new manifest; None for a manifest not made here.

    Blocking.  A manifest that came with the image is what others know it by, and stays as it is.  The same tar gives
    the same bytes each time.
    """
    manifest = msgspec.json.decode(store.content.read(target), type=oci.Manifest)
    plain = [layer for layer in manifest.layers if layer.media_type == oci.LAYER]
    blobs = image.blobs_of(target)
    if not plain or write_manifest(store.content, lease, image.id, blobs) != target:
        return None
    made: dict[str, str] = {}

    def compress(layer: oci.Descriptor) -> None:
        meter = Meter(report, short(layer.digest), "Compressing", layer.size)
        with store.content.open(layer.digest) as source, store.content.ingest(hold=lease.hold, durable=False) as ingest:
            zipped = GzipWriter(ingest.write)
            done = 0
            while data := source.read(_CHUNK):
                zipped.write(data)
                done += len(data)
                meter.at(done)
            zipped.finish()
        made[layer.digest] = ingest.digest

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(compress, {layer.digest: layer for layer in plain}.values()))
    better = [made.get(blob, blob) for blob in blobs]
    return msgspec.structs.replace(image, blobs=better, manifest=write_manifest(store.content, lease, image.id, better))
