"""``pull``: a reference → manifest → this machine's platform → configuration and layers → an image with a name.

Everything is held in a lease before it is looked for.  Layers come and are unpacked side by side; what several pulls
need at once comes once.  Nothing of it has a name before the image is recorded: a pull that fails leaves what has
arrived of its blobs to the next one, and no image, layer or name.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Struct

from ketch.errors import InvalidArgument, NotFound
from ketch.images.assembly import make_image
from ketch.images.single_flight import run_uncancellable
from ketch.images.transfer.layers import Layer, LayerService
from ketch.oci import digest as digests
from ketch.oci import manifest as oci
from ketch.oci import platform as platforms
from ketch.oci.config import decode as decode_config
from ketch.oci.reference import Reference
from ketch.storage.snapshots.overlay import check_depth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ketch.images.model import Image
    from ketch.images.progress import Report
    from ketch.images.store import ImageStore
    from ketch.oci.config import ImageConfig
    from ketch.oci.manifest import Platform
    from ketch.remote.repository import Fetched, Repository
    from ketch.storage.content.leases import Lease

_LARGEST_CONFIG = 8 << 20
_DEPTH = 3


class Pulled(NamedTuple):
    """The result of a pull; ``digest`` is that of the reference's manifest or index."""

    image: Image
    digest: str
    new: bool


class Puller(Struct):
    """One pull of one repository."""

    store: ImageStore
    layers: LayerService
    repository: Repository
    report: Report
    mismatch: str = ""  # the words to warn with of an image for another platform than asked for

    async def pull(self, ref: Reference, platform: str = "") -> Pulled:
        """Pull a reference for a platform, by default the best for this machine.

        NotFound, Unauthenticated, PermissionDenied, Unavailable, InvalidArgument, ResourceExhausted.
        """
        wanted = platforms.parse(platform) if platform else None
        asked = ref.digest or ref.tag
        top = await self.repository.manifest(asked)
        self.report({"status": f"Pulling from {ref.path}", "id": asked})
        async with leased(self.store) as lease:
            await run_uncancellable(self._keep, lease, top)
            chosen = await self._choose(lease, top, wanted, ref)
            image = self._known(lease, chosen)
            if image is None:
                image = await self._bring(lease, chosen, ref)
            self.mismatch = _mismatch(image.platform, wanted, ref)
            digest = top.descriptor.digest
            names = [str(Reference(ref.domain, ref.path, digest=digest))]
            if not ref.digest:
                names.append(str(Reference(ref.domain, ref.path, tag=ref.tag)))
            before = self.store.catalog.names.get(names[-1])
            known = self.store.catalog.by_manifest(chosen.descriptor.digest)
            await run_uncancellable(self.store.add, [(image, names)], dict.fromkeys(names, digest))
            self.layers.forget(image.chain_ids)
        return Pulled(image, digest, known is None or before is None or before.target != digest)

    def _keep(self, lease: Lease, fetched: Fetched) -> None:
        self.store.content.put(fetched.data, hold=lease.hold, durable=False)

    async def _choose(self, lease: Lease, top: Fetched, wanted: Platform | None, ref: Reference) -> Fetched:
        """The manifest for the platform; indexes in indexes are followed."""
        found = top
        for _ in range(_DEPTH):
            if found.descriptor.media_type not in oci.INDEXES:
                return found
            descriptor = _for_platform(_decoded(found.data, oci.Index, found), wanted)
            if descriptor is None:
                text = platforms.text(wanted or platforms.host())
                raise NotFound(
                    f"no matching manifest for {text} in the manifest list entries",
                    hint=f"see what `{ref.familiar}` has with: ketch manifest inspect",
                )
            found = await self.repository.manifest(digests.check(descriptor.digest))
            descriptor.check_size(found.descriptor.size)
            await run_uncancellable(self._keep, lease, found)
        raise InvalidArgument(f"pull {ref.familiar}: indexes are nested too deeply")

    def _known(self, lease: Lease, chosen: Fetched) -> Image | None:
        """The image with that manifest, if it is complete."""
        image = self.store.catalog.by_manifest(chosen.descriptor.digest)
        if image is None:
            return None
        blobs = image.blobs_of(chosen.descriptor.digest)
        lease.hold(image.id, *blobs, *image.chain_ids)
        content, layers = self.store.content, self.store.layers
        whole = all(map(content.exists, (image.id, *blobs))) and all(map(layers.exists, image.chain_ids))
        return image if whole else None

    async def _bring(self, lease: Lease, chosen: Fetched, ref: Reference) -> Image:
        manifest = _decoded(chosen.data, oci.Manifest, chosen)
        if manifest.config.media_type not in oci.CONFIGS:
            raise InvalidArgument(
                f"pull {ref.familiar}: unsupported media type {manifest.config.media_type}",
                hint="it is an artifact of another kind, not an image that can be run",
            )
        for layer in manifest.layers:
            digests.check(layer.digest)
        config = await self._config(lease, manifest.config)
        if config.os != "linux":
            raise InvalidArgument(f'image operating system "{config.os}" cannot be used on this platform')
        diff_ids = config.rootfs.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise InvalidArgument(
                f"pull {ref.familiar}: the image has {len(diff_ids)} layers, its manifest {len(manifest.layers)}"
            )
        check_depth(len(diff_ids))
        chains = digests.chain_ids(diff_ids)
        lease.hold(*chains, *(layer.digest for layer in manifest.layers))
        layers = [Layer(*parts) for parts in zip(manifest.layers, diff_ids, chains, strict=True)]
        sizes = await self._all(layers)
        blobs = [layer.digest for layer in manifest.layers]
        return make_image(manifest.config.digest, chosen.descriptor.digest, config, blobs, sizes)

    async def _config(self, lease: Lease, descriptor: oci.Descriptor) -> ImageConfig:
        digests.check(descriptor.digest)
        if descriptor.size > _LARGEST_CONFIG:
            raise InvalidArgument(f"image configuration {descriptor.digest}: larger than {_LARGEST_CONFIG} bytes")
        lease.hold(descriptor.digest)
        if not self.store.content.exists(descriptor.digest):
            await self.layers.downloads.fetch(self.repository, descriptor, lambda _item: None, small=True)
        data = await asyncio.to_thread(self.store.content.read, descriptor.digest, _LARGEST_CONFIG)
        descriptor.check_size(len(data))
        config: ImageConfig = _decode(decode_config, data, f"image configuration {descriptor.digest}")
        for diff_id in config.rootfs.diff_ids:
            digests.check(diff_id)
        return config

    async def _all(self, layers: list[Layer]) -> list[int]:
        """Fetch all layers; the first error cancels the others."""
        tasks = [asyncio.create_task(self.layers.bring(self.repository, layer, self.report)) for layer in layers]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)


@asynccontextmanager
async def leased(store: ImageStore) -> AsyncIterator[Lease]:
    """`ImageStore.lease` for the event loop: its end, which may delete files, runs in a thread."""
    manager = store.lease()
    lease = manager.__enter__()
    try:
        yield lease
    finally:
        await asyncio.shield(asyncio.to_thread(manager.__exit__, None, None, None))


def _for_platform(index: oci.Index, wanted: Platform | None) -> oci.Descriptor | None:
    images = [d for d in index.manifests if d.media_type in oci.MANIFESTS or d.media_type in oci.INDEXES]
    if wanted is not None:
        exact = [d for d in images if d.platform is not None and platforms.matches(wanted, d.platform)]
        if exact:
            return exact[0]
        if not wanted.architecture:
            return None
    best = platforms.best(wanted or platforms.host(), [d.platform for d in images])
    return None if best is None else images[best]


def _mismatch(actual: Platform, wanted: Platform | None, ref: Reference) -> str:
    """Docker's warning of a single manifest that is for another platform; empty when there is no need."""
    if wanted is None or platforms.rank(wanted, actual) is not None:
        return ""
    return (
        f"image with reference {ref.familiar_whole} was found but its platform "
        f"({platforms.text(platforms.normalize(actual))}) does not match the specified platform "
        f"({platforms.text(wanted)})"
    )


def _decoded(data: bytes, kind: Any, fetched: Fetched) -> Any:
    return _decode(lambda text: msgspec.json.decode(text, type=kind), data, f"manifest {fetched.descriptor.digest}")


def _decode(decode: Callable[[bytes], Any], data: bytes, what: str) -> Any:
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise InvalidArgument(f"{what}: {e}") from e
    except RecursionError as e:
        raise InvalidArgument(f"{what}: it is nested too deeply") from e
