"""Images of layers that are here: made by builds and commits, without blobs for what was made here."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ketch.images.assembly import descriptor_of, encode_config, make_image, write_manifest
from ketch.images.made.blobs import ImageBlobs
from ketch.oci import manifest as oci
from ketch.oci.config import RootFS
from ketch.oci.digest import chain_ids
from ketch.storage.layers import tars
from ketch.storage.layers.store import is_built
from ketch.storage.snapshots.overlay import check_depth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.oci.config import ImageConfig
    from ketch.storage.content.leases import Lease


class ImageLayer(NamedTuple):
    """A layer as images have it: its diff id, the descriptor of its blob or of its tar, the bytes of its files."""

    diff_id: str
    descriptor: oci.Descriptor
    files: int


def layers_of(store: ImageStore, image: Image) -> list[ImageLayer]:
    """The layers of an image, lowest first (NotFound: a blob is missing)."""
    blobs = ImageBlobs(store, [image])
    parts = zip(image.diff_ids, image.blobs, image.layer_sizes, strict=True)
    return [
        ImageLayer(diff_id, descriptor_of(store.content, blob, blobs.size(blob)), size) for diff_id, blob, size in parts
    ]


def layer_of(store: ImageStore, lease: Lease, layer: str) -> ImageLayer:
    """A layer as images have it, with a tar that is made of its files.

    Blocking: one that is new is read once, unless the lease is broken off (DataLoss: it is gone).
    """
    made = tars.facts(store.layers, layer, lease.check)
    described = oci.Descriptor(media_type=oci.LAYER, digest=made.diff_id, size=made.size)
    return ImageLayer(made.diff_id, described, made.files)


def built_image(
    store: ImageStore, lease: Lease, layers: Sequence[str], config: ImageConfig, bases: Sequence[Image] = ()
) -> Image:
    """The record of an image of these layers, lowest first, with ``config`` but for its ``rootfs``; for `store.add`.

    The layers are made here, or of images that are here or in ``bases``; the caller's lease holds them, and from then
    on all that the image has.  Blocking: layers that are new are read once.  DataLoss: a layer is gone.
    """
    check_depth(len(layers))
    return image_of(store, lease, layer_facts(store, lease, layers, bases), layers, config)


def layer_facts(
    store: ImageStore, lease: Lease, layers: Sequence[str], bases: Sequence[Image] = ()
) -> list[ImageLayer]:
    """The layers, as images have them; those of an image (here, or in ``bases``) with its blobs, others with a tar.

    The lease holds these blobs from then on.  Blocking: layers that are new are read once (DataLoss: one is gone).
    """
    of_images = layers_of_images(store, lease, {layer for layer in layers if not is_built(layer)}, bases)
    others = list(dict.fromkeys(layer for layer in layers if layer not in of_images))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        made = dict(zip(others, pool.map(lambda layer: layer_of(store, lease, layer), others), strict=True))
    return [of_images[layer] if layer in of_images else made[layer] for layer in layers]


def image_of(
    store: ImageStore, lease: Lease, found: Sequence[ImageLayer], layers: Sequence[str], config: ImageConfig
) -> Image:
    """The record of an image of layers whose facts are known; their chain ids become links to them."""
    diff_ids = [layer.diff_id for layer in found]
    chains = chain_ids(diff_ids)
    lease.hold(*chains, *(layer.descriptor.digest for layer in found))
    for chain, layer, part in zip(chains, layers, found, strict=True):
        store.layers.link(chain, layer)
        _keep_tar(store, lease, chain, layer, part)
    full = msgspec.structs.replace(config, rootfs=RootFS(diff_ids=diff_ids))
    image_id = store.content.put(encode_config(full), hold=lease.hold, durable=False)
    descriptors = [layer.descriptor for layer in found]
    manifest = write_manifest(store.content, lease, image_id, descriptors)
    return make_image(image_id, manifest, full, [d.digest for d in descriptors], [layer.files for layer in found])


def layers_of_images(
    store: ImageStore, lease: Lease, chains: set[str], bases: Sequence[Image] = ()
) -> dict[str, ImageLayer]:
    """The layers of these chain ids, as far as images (here, or in ``bases``) have them; the lease holds these."""
    found: dict[str, ImageLayer] = {}
    for image in (*bases, *store.catalog.images.values()):
        if not chains.difference(found).isdisjoint(image.chain_ids):
            lease.hold(*image.parts())
            found = dict(zip(image.chain_ids, layers_of(store, image), strict=True)) | found
    return found


def _keep_tar(store: ImageStore, lease: Lease, chain: str, layer: str, part: ImageLayer) -> None:
    """Make sure that the layer's bytes can be had by its chain id.

    The chain's layer may have been here before, unpacked from a tar by somebody else: if it does not give the same
    bytes, the tar is stored as a blob.
    """
    digest = part.descriptor.digest
    if store.content.exists(digest) or digest != part.diff_id:
        return
    if tars.facts(store.layers, chain, lease.check).diff_id == digest:
        return
    with store.content.ingest(digest, hold=lease.hold, durable=False) as ingest:
        tars.write(store.layers, layer, digest, ingest.write)
