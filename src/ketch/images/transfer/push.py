"""``push``: uploads a name's target to a registry, unchanged.

Blobs first, several side by side, each only if the registry has it not: what another repository of the same registry
is known to have is mounted from there.  Then the configuration, the manifest, and, for several platforms, the index.
Layers that came uncompressed (in an archive of Docker's) are compressed before, once; the image has that form from
then on.
"""

from __future__ import annotations

import asyncio
import os
from typing import IO, TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from ketch.errors import NotFound
from ketch.failpoints import failpoint
from ketch.images.archives.compressed import compressed
from ketch.images.made.attestations import in_other_form
from ketch.images.made.blobs import ImageBlobs
from ketch.images.progress import Meter, short, status
from ketch.images.transfer.pull import leased
from ketch.oci import manifest as oci
from ketch.oci import reference
from ketch.remote.upload import Upload
from ketch.threads import run_to_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ketch.images.catalog import Named
    from ketch.images.model import Image
    from ketch.images.progress import Report
    from ketch.images.single_flight import SingleFlight
    from ketch.images.store import ImageStore
    from ketch.remote.repository import Repository
    from ketch.storage.content.leases import Lease

_CHUNK = 1 << 20
_MOUNTS_TRIED = 3


class Pushed(NamedTuple):
    """The result of a push: digest and size (bytes) of the manifest or index."""

    digest: str
    size: int


class Pusher(Struct):
    """One push to one repository; ``uploads`` and ``slots`` are shared by all of the daemon's.

    ``compress``: plain layers before they go, and the image has that form from then on.
    """

    store: ImageStore
    repository: Repository
    uploads: SingleFlight[str]
    slots: asyncio.Semaphore
    report: Report
    compress: bool = True

    async def push(self, name: str, platform: str = "") -> Pushed:
        """Push a (normalized) tag's target: its index if complete here, else the image.

        NotFound, Unauthenticated, PermissionDenied, Unavailable, InvalidArgument.
        """
        async with leased(self.store) as lease:
            named = self.store.catalog.names.get(name)
            if named is None:
                raise NotFound(f"tag does not exist: {reference.parse(name).familiar}")
            lease.hold(named.target, *self.store.resolve(named.id).parts())
            tag = reference.parse(name).tag
            index = None if platform else self.store.catalog.indexes.get(named.target)
            if index is not None:
                attested = self.store.catalog.attested[named.target]
                images = {
                    d.digest: self.store.catalog.by_manifest(d.digest)
                    for d in index.manifests
                    if d.digest not in attested
                }
                lease.hold(*(part for image in images.values() if image is not None for part in image.parts()))
                lease.hold(*self.store.catalog.attestations(named.target))
                if all(image is not None for image in images.values()):
                    if self.compress:
                        named, index = await self._compressed_index(lease, name, named, index)
                    pushed = await self._index(name, named, index)
                    return await self._noted(name, named.id, pushed)
                self._report_single_manifest(named, index)
            image = self.store.resolve(name, platform)
            lease.hold(*image.parts())
            image, target = await self._compressed(lease, name, named, image)
            await self._image(target)
            return await self._noted(name, image.id, await self._manifest(tag, target))

    async def push_made(self, target: str, images: Sequence[Image], tag: str) -> Pushed:
        """Push a manifest or an index of images that the caller holds, by a tag or, without one, by its digest.

        They need neither be in the store nor have a name.  Unauthenticated, PermissionDenied, Unavailable.
        """
        by_manifest = {image.manifest: image for image in images}
        index = None
        if target not in by_manifest:
            index = msgspec.json.decode(await asyncio.to_thread(self.store.content.read, target), type=oci.Index)
            for descriptor in index.manifests:
                await self._image(descriptor.digest, by_manifest.get(descriptor.digest))
                await self._manifest(descriptor.digest, descriptor.digest)
        else:
            await self._image(target, by_manifest[target])
        return await self._manifest(tag or target, target, (index.media_type or oci.INDEX) if index else "")

    async def _noted(self, name: str, image_id: str, pushed: Pushed) -> Pushed:
        repository = reference.parse(name).repository
        await asyncio.to_thread(self.store.remember, f"{repository}@{pushed.digest}", image_id)
        return pushed

    async def _index(self, name: str, named: Named, index: oci.Index) -> Pushed:
        for descriptor in index.manifests:
            await self._image(descriptor.digest)
            await self._manifest(descriptor.digest, descriptor.digest)
        return await self._manifest(reference.parse(name).tag, named.target, index.media_type or oci.INDEX)

    def _report_single_manifest(self, named: Named, index: oci.Index) -> None:
        """Report, as Docker does, that a single manifest is pushed in place of an index."""
        image = self.store.catalog.images[named.id]
        selected = next((d for d in index.manifests if d.digest in (image.manifest, *image.forms)), None)
        original = oci.Descriptor(
            media_type=index.media_type or oci.INDEX, digest=named.target, size=self.store.content.size(named.target)
        )
        self.report(
            {
                "aux": {
                    "manifestPushedInsteadOfIndex": True,
                    "originalIndex": msgspec.to_builtins(original),
                    "selectedManifest": msgspec.to_builtins(selected),
                }
            }
        )

    async def _compressed(self, lease: Lease, name: str, named: Named, image: Image) -> tuple[Image, str]:
        """The image, compressed if need be, and its manifest."""
        own = named.target in (image.manifest, *image.forms)
        target = named.target if own else image.manifest
        if not self.compress:
            return image, target
        better = await run_to_end(compressed, self.store, lease, image, target, self._from_thread())
        if better is None:
            return image, target
        await run_to_end(self.store.add, [(better, [name] if own else [])])
        return better, better.manifest

    async def _compressed_index(
        self, lease: Lease, name: str, named: Named, index: oci.Index
    ) -> tuple[Named, oci.Index]:
        """The index, which the name stands for from then on, of images that were compressed.

        Only one whose images have layers without blobs, for that was made here; others go as they are.  Attestations
        are about the images in their new form.
        """
        found: dict[str, Image] = {}
        for descriptor in index.manifests:
            image = self.store.catalog.by_manifest(descriptor.digest)
            if image is not None and not all(map(self.store.content.exists, image.blobs_of(descriptor.digest))):
                arguments = self.store, lease, image, descriptor.digest, self._from_thread()
                better = await run_to_end(compressed, *arguments)
                if better is not None:
                    found[descriptor.digest] = better
        if not found:
            return named, index
        target = await run_to_end(in_other_form, self.store.content, lease, index, found)
        await run_to_end(self.store.add, [(one, [name]) for one in found.values()], {name: target})
        return self.store.catalog.names[name], self.store.catalog.indexes[target]

    def _from_thread(self) -> Report:
        loop = asyncio.get_running_loop()
        return lambda item: loop.call_soon_threadsafe(self.report, item)  # type: ignore[return-value]

    async def _image(self, target: str, image: Image | None = None) -> None:
        """Upload all blobs of one manifest, of the image or of one that is in the store."""
        data = await asyncio.to_thread(self.store.content.read, target)
        manifest = msgspec.json.decode(data, type=oci.Manifest)
        layers = list({layer.digest: layer for layer in manifest.layers}.values())
        for layer in layers:
            self.report(status(short(layer.digest), "Preparing"))
        image = image or self.store.catalog.by_manifest(target)
        blobs = ImageBlobs(self.store, [image] if image is not None else [])
        tasks = [asyncio.create_task(self._blob(blobs, layer, self.report)) for layer in layers]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        await self._blob(blobs, manifest.config, lambda _item: None)
        failpoint("push.blobs-sent")

    async def _blob(self, blobs: ImageBlobs, descriptor: oci.Descriptor, report: Report) -> None:
        ident = short(descriptor.digest)
        if descriptor.urls and not blobs.exists(descriptor.digest):
            report(status(ident, "Skipped foreign layer"))
            return
        key = f"{self.repository.name} {descriptor.digest}"
        outcome = await self.uploads.join(key, lambda publish: self._upload(blobs, descriptor, publish), report)
        report(status(ident, outcome))

    async def _upload(self, blobs: ImageBlobs, descriptor: oci.Descriptor, report: Report) -> str:
        ident = short(descriptor.digest)
        if self.slots.locked():
            report(status(ident, "Waiting"))
        async with self.slots:
            if await self.repository.blob_size(descriptor.digest) is not None:
                return "Layer already exists"
            for source in self._sources(descriptor.digest):
                if await self.repository.mount(descriptor.digest, source):
                    return f"Mounted from {source}"
            meter = Meter(report, ident, "Pushing", descriptor.size)
            meter.at(0)
            file = await run_to_end(blobs.open, descriptor.digest)
            with file:
                await Upload(self.repository, descriptor, lambda at: _read(_again(file), at), meter.at).run()
            return "Pushed"

    def _sources(self, digest: str) -> list[str]:
        """Other repositories of the registry that, by local names, have the blob."""
        target = self.repository.reference
        catalog = self.store.catalog
        found: dict[str, None] = {}
        for name, named in catalog.names.items():
            ref = reference.parse(name)
            if ref.domain == target.domain and ref.path != target.path and "@" in name:
                image = catalog.images[named.id]
                if digest in image.parts():
                    found[ref.path] = None
        return list(found)[:_MOUNTS_TRIED]

    async def _manifest(self, ref: str, digest: str, media_type: str = "") -> Pushed:
        data = await asyncio.to_thread(self.store.content.read, digest)
        if not media_type:
            manifest = msgspec.json.decode(data, type=oci.Manifest)
            media_type = manifest.media_type or oci.MANIFEST
        found = await self.repository.put_manifest(ref, data, media_type)
        failpoint("push.manifest-sent")
        return Pushed(found, len(data))


def _again(file: IO[bytes]) -> IO[bytes]:
    """The same file with a descriptor of its own, which whoever reads it closes."""
    return open(os.dup(file.fileno()), "rb")


async def _read(file: IO[bytes], offset: int) -> AsyncIterator[bytes]:
    """A blob in pieces, from an offset on; closes it."""
    with file:
        file.seek(offset)
        while data := await asyncio.to_thread(file.read, _CHUNK):
            yield data
