"""Layers from a registry: download to the content store and unpacking to the layer store, concurrently."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, NamedTuple

from ketch.images.progress import Meter, moving, short, status
from ketch.images.single_flight import SingleFlight
from ketch.images.transfer.fetch import BlobProgress, Downloads
from ketch.images.unpack import check
from ketch.storage.layers import tars
from ketch.storage.removal import remove_tree
from ketch.storage.sizes import written_bytes
from ketch.threads import run_to_end

if TYPE_CHECKING:
    from ketch.images.progress import ProgressItem, Report
    from ketch.images.store import ImageStore
    from ketch.images.transfer.fetch import DownloadReport
    from ketch.oci.manifest import Descriptor
    from ketch.remote.repository import Repository
    from ketch.storage.layers.unpack_pool import Unpacked, Unpacking

_WORTH_FOLLOWING = 1 << 20
_LOOK_S = 0.1


class Layer(NamedTuple):
    """One layer of an image: its blob, the digest of its tar, and the name of its directory."""

    descriptor: Descriptor
    diff_id: str
    chain_id: str


class LayerService:
    """The layers of all pulls of one daemon; a layer that several need is fetched once."""

    def __init__(self, store: ImageStore, downloads: Downloads) -> None:
        self._store = store
        self.downloads = downloads
        self._shared: SingleFlight[int] = SingleFlight()
        self._sizes: dict[str, int] = {}  # of layers that are here and in no image yet

    async def bring(self, repository: Repository, layer: Layer, report: Report) -> int:
        """Download and unpack a layer that the caller holds in a lease; returns the bytes of its files.

        Raises what `Downloads.fetch` does, and InvalidArgument for a blob that cannot be unpacked.
        """
        key = f"{layer.chain_id} {layer.descriptor.digest}"
        size = await self._shared.join(key, lambda publish: self._bring(repository, layer, publish), report)
        self._sizes[layer.chain_id] = size
        return size

    def forget(self, chain_ids: list[str]) -> None:
        """Drop the results of layers that an image's record has now, or that were removed."""
        for chain in chain_ids:
            self._sizes.pop(chain, None)

    async def _bring(self, repository: Repository, layer: Layer, report: Report) -> int:
        ident = short(layer.descriptor.digest)
        if self._store.content.exists(layer.descriptor.digest):
            layer.descriptor.check_size(self._store.content.size(layer.descriptor.digest))
        unpacked = self._store.layers.exists(layer.chain_id)
        here = self._store.content.exists(layer.descriptor.digest) or self._can_be_made(layer)
        if unpacked and here:
            report(status(ident, "Already exists"))
            return await self._size(layer.chain_id)
        report(status(ident, "Pulling fs layer"))

        if unpacked:
            await self.downloads.fetch(repository, layer.descriptor, _shown(report))
            report(status(ident, "Pull complete"))
            return await self._size(layer.chain_id)
        directory = await asyncio.to_thread(self._store.layers.begin)
        unpacking = _Unpacking(self._store, layer, directory, report)
        try:
            if not here:
                await self.downloads.fetch(repository, layer.descriptor, unpacking.on_progress)
            size = await unpacking.finish()
            await run_to_end(self._store.layers.commit, directory, layer.chain_id)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(unpacking.undo))
            raise
        report(status(ident, "Pull complete"))
        return size

    def _can_be_made(self, layer: Layer) -> bool:
        """Whether the blob is a plain tar that the layer, which was made here, gives (InvalidArgument: its size)."""
        made = tars.known(self._store.layers, layer.chain_id)
        if made is None or made.diff_id != layer.descriptor.digest:
            return False
        layer.descriptor.check_size(made.size)
        return True

    async def _size(self, chain_id: str) -> int:
        known = self._sizes.get(chain_id, self._store.layer_sizes().get(chain_id))
        return known if known is not None else await asyncio.to_thread(written_bytes, self._store.layers.diff(chain_id))


class _Unpacking:
    """The unpacking of one layer, during its download if that pays off, else afterwards."""

    def __init__(self, store: ImageStore, layer: Layer, directory: str, report: Report) -> None:
        self._store, self._layer, self._directory, self._report = store, layer, directory, report
        self._job: Unpacking | None = None
        self._generation = 0
        self._stale = False

    def on_progress(self, item: ProgressItem | BlobProgress) -> None:
        """Handle the download's progress."""
        if not isinstance(item, BlobProgress):
            self._report(item)
        elif self._job is None:
            if item.size and self._layer.descriptor.size >= _WORTH_FOLLOWING:
                self._generation = item.generation
                self._job = self._store.unpacker.begin(
                    item.path, self._store.layers.files(self._directory), self._layer.descriptor.digest
                )
                self._job.grown(item.size)
        elif item.generation == self._generation:
            self._job.grown(item.size)
        else:
            self._stale = True  # what it has read so far was not the blob
            self._job.give_up()

    async def finish(self) -> int:
        """Finish the unpacking after the download; returns the bytes of the layer's files (InvalidArgument)."""
        digest, total = self._layer.descriptor.digest, self._layer.descriptor.size
        if self._stale and self._job is not None:
            await asyncio.to_thread(self._job.abort)
            await asyncio.to_thread(self._clear)
            self._job = None
        if self._job is None:
            path, files = self._store.content.path(digest), self._store.layers.files(self._directory)
            self._job = self._store.unpacker.begin(path, files, digest, total)
        done = await self._ended(self._job)
        check(digest, done.diff_id, self._layer.diff_id)
        self._report(moving(short(digest), "Extracting", total, total))
        return done.size

    async def _ended(self, job: Unpacking) -> Unpacked:
        """The result of the worker."""
        job.finish(self._layer.descriptor.size)
        meter = Meter(self._report, short(self._layer.descriptor.digest), "Extracting", self._layer.descriptor.size)
        future = asyncio.wrap_future(job.future)
        while not (await asyncio.wait([future], timeout=_LOOK_S))[0]:
            meter.at(job.consumed)
        return future.result()

    def _clear(self) -> None:
        remove_tree(self._store.layers.files(self._directory))
        os.mkdir(self._store.layers.files(self._directory), 0o755)

    def undo(self) -> None:
        """Stop, and remove the unpacked files."""
        if self._job is not None:
            self._job.abort()
        self._store.layers.abort(self._directory)


def _shown(report: Report) -> DownloadReport:
    """A report without the progress that is for readers of the file."""
    return lambda item: None if isinstance(item, BlobProgress) else report(item)
