"""Assembly of an image from parts that are in place: its configuration, manifest and record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.images.model import Image
from ketch.oci import manifest as oci
from ketch.oci.config import parse_time
from ketch.oci.digest import chain_ids
from ketch.storage.archive.compression import kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.oci.config import ImageConfig
    from ketch.storage.content.leases import Lease
    from ketch.storage.content.store import ContentStore


def encode_config(config: ImageConfig) -> bytes:
    """The JSON of a new configuration; maps are in the order of their names, so that equal ones are one image."""
    builtins = msgspec.to_builtins(config, order="deterministic")
    builtins["rootfs"] = {"type": "layers", "diff_ids": config.rootfs.diff_ids}  # required even when a default
    return msgspec.json.encode(builtins)


def write_manifest(
    content: ContentStore,
    lease: Lease,
    config: str,
    layers: Sequence[oci.Descriptor],
    annotations: dict[str, str] | None = None,
) -> str:
    """Write the manifest for a configuration that is in place and these layers; returns its digest."""
    described = oci.Descriptor(media_type=oci.CONFIG, digest=config, size=content.size(config))
    manifest = oci.Manifest(config=described, layers=list(layers), media_type=oci.MANIFEST, annotations=annotations)
    return content.put(oci.encode(manifest), hold=lease.hold, durable=False)


def descriptor_of(content: ContentStore, blob: str, size: int | None = None) -> oci.Descriptor:
    """The descriptor of a layer's blob (NotFound); with a ``size``, of one that need not be there: a plain tar."""
    if size is not None and not content.exists(blob):
        return oci.Descriptor(media_type=oci.LAYER, digest=blob, size=size)
    with content.open(blob) as f:
        media_type = {"gzip": oci.LAYER_GZIP, "zstd": oci.LAYER_ZSTD}.get(kind(f.read(6)), oci.LAYER)
    return oci.Descriptor(media_type=media_type, digest=blob, size=content.size(blob))


def make_image(image_id: str, manifest: str, config: ImageConfig, blobs: list[str], sizes: list[int]) -> Image:
    """The record of an image whose content is in place."""
    return Image(
        id=image_id,
        manifest=manifest,
        config=config,
        diff_ids=config.rootfs.diff_ids,
        chain_ids=chain_ids(config.rootfs.diff_ids),
        blobs=blobs,
        layer_sizes=sizes,
        created=parse_time(config.created),
    )
