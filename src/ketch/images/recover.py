"""Recovery of images that the database lost, from the content store."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import KetchError
from ketch.images import layoutindex
from ketch.images.assembly import make_image
from ketch.images.catalog import Named
from ketch.oci import manifest as oci
from ketch.oci import platform, reference
from ketch.oci.config import decode
from ketch.storage.layers import tars
from ketch.storage.sizes import written_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from sqlite3 import Row

    from ketch.images.model import Image
    from ketch.storage.content.store import ContentStore
    from ketch.storage.database.records import Records
    from ketch.storage.layers.store import Layers

log = logging.getLogger(__name__)
_LARGEST = 1 << 20  # a manifest is a few kilobytes
_NAME = "io.containerd.image.name"


def images(content: ContentStore, layers: Layers) -> list[Image]:
    """Every image whose manifest, configuration, blobs and layers are all there."""
    found = []
    for digest in content.all():
        if content.size(digest) > _LARGEST:
            continue
        try:
            manifest = msgspec.json.decode(content.read(digest), type=oci.Manifest)
            config = decode(content.read(manifest.config.digest))
            blobs = [layer.digest for layer in manifest.layers]
            image = make_image(manifest.config.digest, digest, config, blobs, [0] * len(blobs))
        except (msgspec.DecodeError, KetchError, UnicodeDecodeError):
            continue  # a layer, a configuration, or a manifest whose parts are gone
        if (
            len(image.chain_ids) == len(blobs)
            and all(map(layers.exists, image.chain_ids))
            and all(_is_here(content, layers, *parts) for parts in zip(blobs, image.chain_ids, strict=True))
        ):
            sizes = [written_bytes(layers.diff(chain)) for chain in image.chain_ids]
            found.append(msgspec.structs.replace(image, layer_sizes=sizes))
    return found


def _is_here(content: ContentStore, layers: Layers, blob: str, chain: str) -> bool:
    """Whether a blob is stored, or is the tar of the layer, which was made here."""
    if content.exists(blob):
        return True
    made = tars.known(layers, chain)
    return made is not None and made.diff_id == blob


def from_rows(
    rows: Sequence[Row], records: Records[Image], content: ContentStore, layers: Layers
) -> tuple[dict[str, Image], set[str]]:
    """The images of these rows by id, unreadable ones recovered; and the ids of those that cannot be."""
    found: dict[str, Image] = {}
    broken: set[str] = set()
    for row in rows:
        try:
            found[row["id"]] = records.read(row["id"], row["record"])
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as e:
            log.error("the row of image %s cannot be read: %s", row["id"], e)
            broken.add(row["id"])
    if broken:
        found.update({image.id: image for image in images(content, layers) if image.id in broken})
    for image_id in broken - found.keys():
        log.error("image %s cannot be made anew from the content store; nothing of it is removed", image_id)
    return found, broken - found.keys()


def names(content: ContentStore, found: Sequence[Image]) -> dict[str, Named]:
    """The targets of the tags in ``index.json`` among these images; empty without a readable one."""
    try:
        with open(os.path.join(content.root, "index.json"), "rb") as f:
            index = msgspec.json.decode(f.read(), type=oci.Index)
    except (OSError, msgspec.DecodeError):
        return {}
    by_manifest = {image.manifest: image for image in found}
    result = {}
    for descriptor in index.manifests:
        name = (descriptor.annotations or {}).get(_NAME)
        target = descriptor.digest
        inner = layoutindex.read(content, target) if target not in by_manifest else None
        targets = [d.digest for d in inner.manifests] if inner is not None else [target]
        here = [by_manifest[digest] for digest in targets if digest in by_manifest]
        if name and here:
            best = platform.best(platform.host(), [image.platform for image in here])
            result[str(reference.parse(name))] = Named(here[best or 0].id, target)
    return result
