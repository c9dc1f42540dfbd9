"""``pull``: a reference → manifest → this machine's platform → configuration and layers → an image with a name.

Everything is held in a lease before it is looked for.  Layers come and are unpacked side by side; what several pulls
need at once comes once.  Nothing of it has a name before the image is recorded: a pull that fails leaves what has
arrived of its blobs to the next one, and no image, layer or name.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from ketch.images.assembly import make_image
from ketch.images.made.blobs import ImageBlobs
from ketch.images.transfer import choose as choice
from ketch.oci import platform as platforms
from ketch.oci.reference import Reference
from ketch.threads import run_to_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.images.model import Image
    from ketch.images.progress import Report
    from ketch.images.store import ImageStore
    from ketch.images.transfer.layers import Layer, LayerService
    from ketch.oci import manifest as oci
    from ketch.oci.config import ImageConfig
    from ketch.oci.manifest import Platform
    from ketch.remote.repository import Fetched, Repository
    from ketch.storage.content.leases import Lease


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
            image, chosen = await self.bring(lease, top, wanted, ref)
            self.mismatch = _mismatch(image.platform, wanted, ref)
            digest = top.descriptor.digest
            names = [str(Reference(ref.domain, ref.path, digest=digest))]
            if not ref.digest:
                names.append(str(Reference(ref.domain, ref.path, tag=ref.tag)))
            before = self.store.catalog.names.get(names[-1])
            known = self.store.catalog.by_manifest(chosen)
            await run_to_end(self.store.add, [(image, names)], dict.fromkeys(names, digest))
            self.layers.forget(image.chain_ids)
        return Pulled(image, digest, known is None or before is None or before.target != digest)

    async def bring(self, lease: Lease, top: Fetched, wanted: Platform | None, ref: Reference) -> tuple[Image, str]:
        """An image for a platform with all that it consists of, and the digest of its manifest; it is not recorded.

        ``top`` is the manifest or index of the reference.
        """

        async def keep(fetched: Fetched) -> None:
            await run_to_end(self._keep, lease, fetched)

        await keep(top)
        chosen = await choice.choose(self.repository, top, wanted, ref, keep)
        image = self._known(lease, chosen) or await self._bring(lease, chosen, ref)
        return image, chosen.descriptor.digest

    def _keep(self, lease: Lease, fetched: Fetched) -> None:
        self.store.content.put(fetched.data, hold=lease.hold, durable=False)

    def _known(self, lease: Lease, chosen: Fetched) -> Image | None:
        """The image with that manifest, if it is complete."""
        image = self.store.catalog.by_manifest(chosen.descriptor.digest)
        if image is None:
            return None
        blobs = image.blobs_of(chosen.descriptor.digest)
        lease.hold(image.id, *blobs, *image.chain_ids)
        here = ImageBlobs(self.store, [image])
        whole = all(map(here.exists, (image.id, *blobs))) and all(map(self.store.layers.exists, image.chain_ids))
        return image if whole else None

    async def _bring(self, lease: Lease, chosen: Fetched, ref: Reference) -> Image:
        manifest = choice.image_manifest(chosen, ref)
        config = await self._config(lease, manifest.config)
        layers = choice.image_layers(manifest, config, ref)
        blobs = [layer.descriptor.digest for layer in layers]
        lease.hold(*(layer.chain_id for layer in layers), *blobs)
        sizes = await self._all(layers)
        return make_image(manifest.config.digest, chosen.descriptor.digest, config, blobs, sizes)

    async def _config(self, lease: Lease, descriptor: oci.Descriptor) -> ImageConfig:
        lease.hold(descriptor.digest)
        if not self.store.content.exists(descriptor.digest):
            await self.layers.downloads.fetch(self.repository, descriptor, lambda _item: None, small=True)
        data = await asyncio.to_thread(self.store.content.read, descriptor.digest, choice.LARGEST_CONFIG)
        descriptor.check_size(len(data))
        return choice.image_config(data, descriptor.digest)

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


def _mismatch(actual: Platform, wanted: Platform | None, ref: Reference) -> str:
    """Docker's warning of a single manifest that is for another platform; empty when there is no need."""
    if wanted is None or platforms.rank(wanted, actual) is not None:
        return ""
    return (
        f"image with reference {ref.familiar_whole} was found but its platform "
        f"({platforms.text(platforms.normalize(actual))}) does not match the specified platform "
        f"({platforms.text(wanted)})"
    )
