"""Manifests of exchanged caches: an index, or what has the form of an image's, with layers and the list of records.

Images can have a cache within themselves, too.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ketch.build.cache.exchange import config as configs
from ketch.build.cache.exchange.config import CacheLayer
from ketch.build.cache.exchange.exports import INLINE
from ketch.build.cache.exchange.imports import CachedLayer, ImportedCache
from ketch.errors import InvalidArgument
from ketch.oci import digest
from ketch.oci import manifest as oci

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ketch.build.cache.exchange.config import CacheConfig
    from ketch.build.cache.exchange.imports import LayerLoader

UNCOMPRESSED = "containerd.io/uncompressed"
"""The annotation of a layer's descriptor that has the digest of its tar."""

_LARGEST_MANIFEST = 4 << 20
_MOST_IMAGES = 64  # of one index


class CacheReader(Protocol):
    """The place of an exchanged cache: a repository, or a directory."""

    async def manifest(self) -> bytes:
        """The manifest or index that is asked for (NotFound, Unavailable, …)."""
        ...

    async def read(self, descriptor: oci.Descriptor, limit: int) -> bytes:
        """A small blob or manifest, verified (KetchError)."""
        ...


class _Parts(msgspec.Struct, rename="camel"):
    """The fields of manifests and indexes that count here."""

    config: oci.Descriptor | None = None
    layers: list[oci.Descriptor] = []
    manifests: list[oci.Descriptor] = []


class _RootFS(msgspec.Struct, frozen=True):
    diff_ids: list[str] = []


class _CachingImage(msgspec.Struct):
    """An image's configuration, with the records that it may have."""

    rootfs: _RootFS = _RootFS()
    cache: str | None = msgspec.field(name=INLINE, default=None)


# -- written -------------------------------------------------------------------------------------


class CacheManifest(msgspec.Struct, frozen=True):
    """A manifest to be written, after its layers and the list of records, ``config``."""

    media_type: str
    data: bytes
    config: oci.Descriptor
    config_data: bytes


def written(
    config: CacheConfig, layers: Iterable[CachedLayer], *, image_manifest: bool = True, oci_types: bool = True
) -> CacheManifest:
    """The manifest of a cache: of an image's form, or an index as older versions of BuildKit have it."""
    data = msgspec.json.encode(config)
    described = oci.Descriptor(media_type=configs.MEDIA_TYPE, digest=digest.of(data), size=len(data))
    known = {one.descriptor.digest: _annotated(one, oci_types) for one in layers}
    listed = list({layer.blob: known[layer.blob] for layer in config.layers}.values())
    form: oci.Manifest | oci.Index
    if image_manifest:
        if not oci_types:
            raise InvalidArgument("invalid configuration, image-manifest=true requires oci-mediatypes=true")
        form = oci.Manifest(media_type=oci.MANIFEST, config=described, layers=listed)
    else:
        form = oci.Index(media_type=oci.INDEX if oci_types else oci.DOCKER_INDEX, manifests=[*listed, described])
    return CacheManifest(form.media_type or "", oci.encode(form), described, data)


def _annotated(layer: CachedLayer, oci_types: bool) -> oci.Descriptor:
    annotations = {**(layer.descriptor.annotations or {}), UNCOMPRESSED: layer.diff_id}
    media_type = layer.descriptor.media_type
    if media_type in (oci.LAYER_GZIP, oci.DOCKER_LAYER):
        media_type = oci.LAYER_GZIP if oci_types else oci.DOCKER_LAYER
    return oci.Descriptor(
        media_type=media_type, digest=layer.descriptor.digest, size=layer.descriptor.size, annotations=annotations
    )


# -- read ----------------------------------------------------------------------------------------


async def imported(reader: CacheReader, loader: LayerLoader) -> list[ImportedCache]:
    """The caches at a place: the one that a manifest is of, or those within images (KetchError)."""
    manifest = _decoded(await reader.manifest(), _Parts, "the manifest of an imported cache")
    listed = [*manifest.manifests, *([manifest.config] if manifest.config is not None else [])]
    described = next((one for one in listed if one.media_type == configs.MEDIA_TYPE), None)
    if described is None:
        return await _within_images(reader, loader, manifest)
    config = configs.decode(await reader.read(described, configs.LARGEST))
    layers = [one for one in (*manifest.layers, *manifest.manifests) if one.media_type != configs.MEDIA_TYPE]
    known = {one.digest: CachedLayer(one, _diff_id(one)) for one in layers}
    return [await asyncio.to_thread(ImportedCache, config, known, loader)]


def _diff_id(layer: oci.Descriptor) -> str:
    found = (layer.annotations or {}).get(UNCOMPRESSED)
    if found is None and layer.media_type == oci.LAYER:
        found = layer.digest
    if found is None:
        raise InvalidArgument(f"layer {layer.digest} of an imported cache: the digest of its tar is missing")
    return digest.check(found)


async def _within_images(reader: CacheReader, loader: LayerLoader, manifest: _Parts) -> list[ImportedCache]:
    """The caches that images have within their configurations."""
    images = [manifest] if manifest.config is not None else []
    for one in manifest.manifests[:_MOST_IMAGES]:
        if one.media_type in oci.MANIFESTS:
            data = await reader.read(one, _LARGEST_MANIFEST)
            images.append(_decoded(data, _Parts, f"manifest {one.digest} of an imported cache"))
    found = [await _within_image(reader, loader, image) for image in images if image.config and image.layers]
    return [one for one in found if one is not None]


async def _within_image(reader: CacheReader, loader: LayerLoader, image: _Parts) -> ImportedCache | None:
    assert image.config is not None
    if image.config.media_type not in oci.CONFIGS:
        return None
    data = await reader.read(image.config, configs.LARGEST)
    config: _CachingImage = _decoded(data, _CachingImage, f"configuration {image.config.digest} of an image")
    if config.cache is None or len(config.rootfs.diff_ids) != len(image.layers):
        return None
    try:
        records = base64.b64decode(config.cache, validate=True)
    except binascii.Error as e:
        raise InvalidArgument(f"the records of an image's cache cannot be read: {e}") from e
    known = _zipped(image.layers, config.rootfs.diff_ids)
    layers = [CacheLayer(layer.digest, number - 1) for number, layer in enumerate(image.layers)]
    return await asyncio.to_thread(ImportedCache, configs.decode_records(records, layers), known, loader)


def _zipped(layers: Sequence[oci.Descriptor], diff_ids: Sequence[str]) -> Mapping[str, CachedLayer]:
    pairs = zip(layers, diff_ids, strict=True)
    return {layer.digest: CachedLayer(layer, digest.check(diff_id)) for layer, diff_id in pairs}


def _decoded(data: bytes, kind: Any, what: str) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidArgument(f"{what} cannot be read: {e}") from e
