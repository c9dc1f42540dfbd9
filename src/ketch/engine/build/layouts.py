"""Images in OCI layouts of builds' clients: found by digest, copied here when needed."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ketch.build.providers import FoundImage
from ketch.build.tree import Tree
from ketch.images.assembly import make_image
from ketch.images.transfer import choose as choice
from ketch.images.unpack import unpack_blob
from ketch.oci import digest as digests
from ketch.oci.reference import Reference
from ketch.remote.repository import LARGEST_MANIFEST, Fetched, manifest_type
from ketch.threads import in_own_thread, run_to_end, to_the_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.build.providers import BuildLayout
    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.images.transfer.layers import Layer
    from ketch.oci import manifest as oci
    from ketch.oci.config import ImageConfig
    from ketch.oci.manifest import Platform
    from ketch.storage.content.leases import Lease

T = TypeVar("T")


class _InLayout(NamedTuple):
    """An image in a layout: its manifest as it is there, what that says, and its configuration, also as it is."""

    fetched: Fetched
    manifest: oci.Manifest
    data: bytes
    config: ImageConfig
    layers: list[Layer]


class EngineBuildLayouts:
    """The engine's `BuildLayouts`; used in the event loop."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    async def find(self, layout: BuildLayout, digest: str, platform: Platform) -> FoundImage:
        """An image by the digest of its manifest or of an index (NotFound, InvalidArgument, DataLoss)."""
        found = await _read(layout, digest, platform)
        return FoundImage(
            reference=_reference(digest),
            manifest=found.fetched.descriptor.digest,
            config=found.config,
            id=found.manifest.config.digest,
            data=found.data,
        )

    async def fetch(self, layout: BuildLayout, digest: str, platform: Platform, lease: Lease) -> Tree:
        """Copy what is missing of an image, and unpack its layers, which the lease holds."""
        found = await _read(layout, digest, platform)
        chains = [layer.chain_id for layer in found.layers]
        lease.hold(*chains, *(layer.descriptor.digest for layer in found.layers), found.manifest.config.digest)
        sizes = [await _waited(self._bring, layout, layer) for layer in found.layers]
        image = await _waited(self._assembled, layout, found, sizes, lease)
        await run_to_end(self._store.keep_base, image)
        return Tree(tuple(chains))

    def _bring(self, layout: BuildLayout, layer: Layer) -> int:
        """Have a layer and its blob here; returns the bytes of its files."""
        digest = layer.descriptor.digest
        if not self._store.content.exists(digest):
            with self._store.content.ingest(digest, durable=False) as ingest:
                layout.copy(layer.descriptor, ingest.write)
        known = self._store.layer_sizes().get(layer.chain_id)
        if known is not None and self._store.layers.exists(layer.chain_id):
            return known
        return unpack_blob(self._store, digest, layer.diff_id, layer.chain_id)

    def _assembled(self, layout: BuildLayout, found: _InLayout, sizes: list[int], lease: Lease) -> Image:
        content, described = self._store.content, found.manifest.config
        content.put(layout.read(described, choice.LARGEST_CONFIG), hold=lease.hold, durable=False)
        manifest = content.put(found.fetched.data, hold=lease.hold, durable=False)
        blobs = [layer.descriptor.digest for layer in found.layers]
        return make_image(described.digest, manifest, found.config, blobs, sizes)


class _Manifests:
    """The manifests of a layout (`choose.Manifests`)."""

    def __init__(self, layout: BuildLayout) -> None:
        self._layout = layout

    async def manifest(self, digest: str, /) -> Fetched:
        """A manifest by its digest."""
        return await _waited(self._read, digests.check(digest))

    def _read(self, digest: str) -> Fetched:
        descriptor = self._layout.described(digest)
        data = self._layout.read(descriptor, LARGEST_MANIFEST)
        descriptor.media_type = manifest_type(data, "", digest)
        return Fetched(descriptor, data)


async def _read(layout: BuildLayout, digest: str, platform: Platform) -> _InLayout:
    """The image for a platform (NotFound, InvalidArgument, DataLoss)."""

    async def seen(_fetched: Fetched) -> None:
        pass

    manifests, ref = _Manifests(layout), _named(digest)
    fetched = await choice.choose(manifests, await manifests.manifest(digest), platform, ref, seen)
    manifest = choice.image_manifest(fetched, ref)
    data = await _waited(layout.read, manifest.config, choice.LARGEST_CONFIG)
    config = choice.image_config(data, manifest.config.digest)
    return _InLayout(fetched, manifest, data, config, choice.image_layers(manifest, config, ref))


async def _waited(work: Callable[..., T], *arguments: Any) -> T:
    """The result of blocking work in a thread of its own: the client may stall."""
    return await to_the_end(in_own_thread(functools.partial(work, *arguments)))


def _named(digest: str) -> Reference:
    """A reference for messages and records: images in layouts have no other name."""
    return Reference("docker.io", "library/oci-layout", digest=digest)


def _reference(digest: str) -> str:
    return str(_named(digest))
