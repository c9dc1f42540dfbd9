"""Exchange of caches (``--cache-from``, ``--cache-to``): read before a build, written after it."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING

from ketch.build.cache.exchange import exports, manifests, options
from ketch.engine.build.caches.layers import LayerBlobs, PlaceLoader
from ketch.engine.build.caches.places import DirectoryPlace, ImagePlace, RegistryPlace
from ketch.engine.build.images import session_credentials
from ketch.errors import InvalidArgument, KetchError, NotFound
from ketch.oci import digest as digests
from ketch.oci import manifest as oci
from ketch.oci import reference
from ketch.storage.content.layout_directory import LayoutDirectory
from ketch.threads import to_the_end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.build.cache.exchange.imports import ImportedCache
    from ketch.build.cache.exchange.options import CacheExport, CacheImport
    from ketch.build.cache.records import CacheRecords
    from ketch.build.cache.schema import CacheResult
    from ketch.build.providers import BuildLayout, BuildSession
    from ketch.engine.model.building.builds import CachePlace
    from ketch.images.store import ImageStore
    from ketch.images.transfer.layers import LayerService
    from ketch.remote.client import Remotes
    from ketch.remote.repository import Repository
    from ketch.storage.content.leases import Lease

    BuildResults = Sequence[tuple[Sequence[str], Sequence[str]]]
    """Of each result of a build, the keys of its last step and its layers."""

_LOCAL = "local:"  # before a directory's path: a client's name of it


def check(cache_from: Sequence[CachePlace], cache_to: Sequence[CachePlace]) -> None:
    """Refuse what cannot be read or written, before a build begins (InvalidArgument, Unimplemented)."""
    for place in cache_from:
        options.cache_import(place.kind, place.attrs)
        _check_directory(place, "src")
    for place in cache_to:
        options.cache_export(place.kind, place.attrs)
        _check_directory(place, "dest")


def _check_directory(place: CachePlace, name: str) -> None:
    if place.kind == "local" and place.fd < 0:
        raise InvalidArgument(f"a cache of type=local needs a directory of this machine: {name}=DIRECTORY")


def inline_asked(cache_to: Sequence[CachePlace]) -> bool:
    """Whether the image is to have its cache within itself."""
    return any(place.kind == "inline" for place in cache_to)


def shown(place: CachePlace) -> str:
    """A place as clients see it."""
    return place.attrs.get("ref", "") if place.kind == "registry" else "client directory"


class CacheExchange:
    """The caches that builds of one daemon read and write."""

    def __init__(self, store: ImageStore, remotes: Remotes, layers: LayerService, records: CacheRecords) -> None:
        self._store, self._remotes, self._layers, self._records = store, remotes, layers, records

    # -- read --------------------------------------------------------------------------------------

    async def imports(
        self, place: CachePlace, session: BuildSession, tell: Callable[[str], None]
    ) -> list[ImportedCache]:
        """The caches at a place, for look-ups; of one that cannot be read this is told, and the build goes on."""
        option = options.cache_import(place.kind, place.attrs)
        try:
            reader = await self._reader(option, place, session)
            return await manifests.imported(reader, PlaceLoader(self._store, reader))
        except KetchError as e:
            tell(f"the cache cannot be read and is not used: {e.message}")
            return []

    async def of_image(self, name: str) -> list[ImportedCache]:
        """The cache within an image that is here; none where there is no such image (InvalidArgument)."""
        try:
            place = ImagePlace(self._store, self._store.resolve(name))
        except NotFound:
            return []
        return await manifests.imported(place, PlaceLoader(self._store, place))

    async def _reader(
        self, option: CacheImport, place: CachePlace, session: BuildSession
    ) -> RegistryPlace | DirectoryPlace:
        if option.kind == "local":
            return DirectoryPlace(await _layout(place, "src", session), self._store, option.tag, option.digest)
        return RegistryPlace(await self._repository(option.reference, session, push=False), self._layers)

    async def _repository(self, name: str, session: BuildSession, *, push: bool) -> Repository:
        ref = reference.parse(name)
        return self._remotes.repository(ref, await session_credentials(ref.domain, session), push=push)

    # -- written -----------------------------------------------------------------------------------

    def inline(self, keys: Sequence[str], layers: Sequence[str]) -> str:
        """The records that an image of these layers has within itself, of the keys of its last step."""
        return exports.inline_records(exports.keys_of(self._records, keys, _part_of([layers])), layers)

    async def export(
        self,
        place: CachePlace,
        results: BuildResults,
        session: BuildSession,
        lease: Lease,
        tell: Callable[[str], None],
    ) -> oci.Descriptor | None:
        """Write the cache of a build's results (KetchError); ``tell`` hears of each part that is written.

        Returns the manifest that was written, by which clients find it in directories of theirs.
        """
        option = options.cache_export(place.kind, place.attrs)
        try:
            return await self._export(option, await self._writer(option, place, session), results, lease, tell)
        except KetchError as e:
            if not option.ignore_error:
                raise
            tell(f"the cache cannot be written, which is ignored: {e.message}")
            return None

    async def _writer(
        self, option: CacheExport, place: CachePlace, session: BuildSession
    ) -> RegistryPlace | DirectoryPlace:
        if option.kind == "local":
            return DirectoryPlace(await _layout(place, "dest", session), self._store, option.tag)
        return RegistryPlace(await self._repository(option.reference, session, push=True), self._layers)

    async def _export(
        self,
        option: CacheExport,
        writer: RegistryPlace | DirectoryPlace,
        results: BuildResults,
        lease: Lease,
        tell: Callable[[str], None],
    ) -> oci.Descriptor | None:
        wanted = _all if option.everything else _part_of([layers for _, layers in results])
        keys = exports.keys_of(self._records, [key for found, _ in results for key in found], wanted)
        blobs = LayerBlobs(self._store, lease, option.compression, force=option.force_compression)
        layers = list(dict.fromkeys(layer for key in keys for layer in key.layers))
        if not layers:
            tell("there is nothing that others could use")
            return None
        found = await to_the_end(asyncio.to_thread(blobs.of, layers), lease.break_off)
        manifest = manifests.written(
            exports.config_of(keys, found),
            found.values(),
            image_manifest=option.image_manifest,
            oci_types=option.oci_types,
        )
        for layer in found.values():
            await writer.put(layer.descriptor, blobs.opener(layer.descriptor))
            tell(f"writing layer {layer.descriptor.digest}")
        await writer.put(manifest.config, lambda: io.BytesIO(manifest.config_data))
        tell(f"writing config {manifest.config.digest}")
        described = oci.Descriptor(
            media_type=manifest.media_type, digest=digests.of(manifest.data), size=len(manifest.data)
        )
        await writer.finish(described, manifest.data)
        tell(f"writing cache manifest {described.digest}")
        return described


async def _layout(place: CachePlace, name: str, session: BuildSession) -> BuildLayout:
    """The directory of a cache: open here, or the client's (NotFound)."""
    if place.fd >= 0:
        return LayoutDirectory(place.fd)
    return await session.layout(f"{_LOCAL}{place.attrs.get(name, '')}")


def _all(_result: CacheResult) -> bool:
    return True


def _part_of(results: Sequence[Sequence[str]]) -> Callable[[CacheResult], bool]:
    """Whether a result consists of the lowest layers of one of these."""
    return lambda one: any(list(layers[: len(one.layers)]) == one.layers for layers in results)
