"""A tree of files and a configuration as an image of the image store."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile.convert.state import rfc3339
from ketch.build.export.times import dated
from ketch.build.tree import Tree
from ketch.errors import InvalidArgument
from ketch.images.archives.compressed import compressed
from ketch.images.assembly import write_manifest
from ketch.images.made.image import built_image
from ketch.images.made.times import rewritten
from ketch.notation import times
from ketch.oci import manifest as oci
from ketch.oci.config import ImageConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.build.export.product import Product
    from ketch.build.providers import BuildSnapshots
    from ketch.images.archives.compressed import LayerCompression
    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease

_MADE_HERE = "built-"
_DOCKER_TYPES = {
    oci.CONFIG: oci.DOCKER_CONFIG,
    oci.LAYER: oci.DOCKER_LAYER_PLAIN,
    oci.LAYER_GZIP: oci.DOCKER_LAYER,
    oci.LAYER_ZSTD: oci.DOCKER_LAYER_ZSTD,
    f"{oci.FOREIGN}+gzip": oci.DOCKER_FOREIGN,
}


class _CachingConfig(ImageConfig, kw_only=True, omit_defaults=True):
    """A configuration that has the records of a cache within itself, as BuildKit has them."""

    cache: str | None = msgspec.field(name="moby.buildkit.cache.v0", default=None)


def with_its_time(store: ImageStore, lease: Lease, product: Product) -> Product:
    """A product whose layers, as far as they were made here, have no file later than the build's own time.  Blocking.

    InvalidArgument: the build has none.
    """
    epoch, layers = product.epoch, product.tree.layers
    if epoch is None:
        raise InvalidArgument("rewrite-timestamp: the build has no time", hint="give --build-arg SOURCE_DATE_EPOCH=…")
    found = (rewritten(store, lease, one, epoch) if one.startswith(_MADE_HERE) else one for one in layers)
    return msgspec.structs.replace(product, tree=Tree(tuple(found)))


def annotated(store: ImageStore, lease: Lease, image: Image, annotations: Mapping[str, str]) -> None:
    """Give an image that is not in the store yet a manifest with annotations.  Blocking."""
    found = msgspec.json.decode(store.content.read(image.manifest), type=oci.Manifest)
    image.manifest = write_manifest(store.content, lease, image.id, found.layers, dict(annotations))


def in_form(store: ImageStore, lease: Lease, image: Image, how: LayerCompression) -> Image:
    """An image that is not in the store yet, with its layers compressed as asked for.  Blocking."""
    return compressed(store, lease, image, image.manifest, lambda _item: None, how) or image


def with_docker_types(store: ImageStore, lease: Lease, image: Image) -> Image:
    """An image that is not in the store yet, with a manifest of Docker's media types, which has no annotations.

    Blocking.
    """
    found = msgspec.json.decode(store.content.read(image.manifest), type=oci.Manifest)

    def typed(one: oci.Descriptor) -> oci.Descriptor:
        return msgspec.structs.replace(one, media_type=_DOCKER_TYPES.get(one.media_type, one.media_type))

    manifest = oci.Manifest(
        config=typed(found.config), layers=[typed(one) for one in found.layers], media_type=oci.DOCKER_MANIFEST
    )
    digest = store.content.put(oci.encode(manifest), hold=lease.hold, durable=False)
    return msgspec.structs.replace(image, manifest=digest)


def make(store: ImageStore, snapshots: BuildSnapshots, lease: Lease, product: Product) -> Image:
    """The record of an image, whose content is in place and held by the lease; not in the store yet.  Blocking."""
    config, layers = product.config, product.tree.layers
    if product.epoch is not None:
        config = msgspec.structs.replace(config, created=rfc3339(product.epoch))
    made = [_time_of(snapshots, layer) for layer in layers]
    if product.epoch is not None:
        made = [config.created for _ in made]
    config = dated(config, made, times.fixed(time.time_ns()))
    if product.cache is not None:
        config = _CachingConfig(**msgspec.structs.asdict(config), cache=product.cache)
    return built_image(store, lease, layers, config)


def _time_of(snapshots: BuildSnapshots, layer: str) -> str | None:
    """The time at which a layer was made here; None: it came with an image."""
    if not layer.startswith(_MADE_HERE):
        return None
    # Of its directory, which nobody changes afterwards: links to the files in it are not counted there.
    return times.fixed(os.stat(snapshots.directory(layer)).st_ctime_ns)
