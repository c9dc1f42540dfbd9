"""Places of exchanged caches: repositories of registries, and clients' directories."""

from __future__ import annotations

import asyncio
import functools
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

from ketch.engine.os_errors import explained
from ketch.errors import DataLoss, InvalidArgument
from ketch.oci import digest as digests
from ketch.oci import manifest as oci
from ketch.remote.upload import Upload
from ketch.threads import in_own_thread, to_the_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ketch.build.cache.exchange.imports import CachedLayer
    from ketch.build.providers import BuildLayout
    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.images.transfer.layers import LayerService
    from ketch.remote.repository import Repository

T = TypeVar("T")
_CHUNK = 1 << 20
_LARGEST_MANIFEST = 4 << 20


class CachePlaceReader(Protocol):
    """A place where a cache is read from."""

    async def manifest(self) -> bytes:
        """The manifest or index that is asked for (KetchError)."""
        ...

    async def read(self, descriptor: oci.Descriptor, limit: int) -> bytes:
        """A small blob or manifest, verified (KetchError)."""
        ...

    async def bring(self, layer: CachedLayer, chain_id: str) -> None:
        """Fetch a layer and unpack it under a chain id that the caller holds, as its blob (KetchError)."""
        ...


class CachePlaceWriter(Protocol):
    """A place where a cache is written to."""

    async def put(self, descriptor: oci.Descriptor, opened: Callable[[], IO[bytes]]) -> None:
        """Write a blob, unless it is there (KetchError)."""
        ...

    async def finish(self, descriptor: oci.Descriptor, data: bytes) -> None:
        """Write the manifest, under the place's name (KetchError)."""
        ...


class RegistryPlace:
    """A tag or digest of a repository."""

    def __init__(self, repository: Repository, layers: LayerService) -> None:
        self._repository, self._layers = repository, layers
        reference = repository.reference
        self._asked = reference.digest or reference.tag

    async def manifest(self) -> bytes:
        """The manifest or index that the reference names."""
        return (await self._repository.manifest(self._asked)).data

    async def read(self, descriptor: oci.Descriptor, limit: int) -> bytes:
        """A small blob or manifest, verified."""
        if descriptor.media_type in oci.MANIFESTS | oci.INDEXES:
            return (await self._repository.manifest(digests.check(descriptor.digest))).data
        if descriptor.size > limit:
            raise InvalidArgument(f"{descriptor.digest} of an imported cache is larger than {limit} bytes")
        data = b""
        async with self._repository.blob(descriptor) as (_, pieces):
            async for piece in pieces:
                data += piece
                if len(data) > descriptor.size:
                    break
        descriptor.check_size(len(data))
        if not digests.matches(digests.check(descriptor.digest), data):
            raise DataLoss(f"{descriptor.digest} of an imported cache: its content does not match its digest")
        return data

    async def bring(self, layer: CachedLayer, chain_id: str) -> None:
        """Fetch a layer and unpack it."""
        from ketch.images.transfer.layers import Layer

        await self._layers.bring(self._repository, Layer(layer.descriptor, layer.diff_id, chain_id), lambda _item: None)
        self._layers.forget([chain_id])

    async def put(self, descriptor: oci.Descriptor, opened: Callable[[], IO[bytes]]) -> None:
        """Upload a blob, unless the registry has it."""
        if await self._repository.blob_size(descriptor.digest) is None:
            await Upload(self._repository, descriptor, lambda at: _read(opened(), at), lambda _sent: None).run()

    async def finish(self, descriptor: oci.Descriptor, data: bytes) -> None:
        """Write the manifest under the reference's tag."""
        await self._repository.put_manifest(self._asked, data, descriptor.media_type)


class DirectoryPlace:
    """A name within an image-layout of a client's."""

    def __init__(self, layout: BuildLayout, store: ImageStore, tag: str, digest: str = "") -> None:
        self._layout = layout
        self._store = store
        self._tag, self._digest = tag, digest

    async def manifest(self) -> bytes:
        """The manifest or index of the name, or the digest (NotFound)."""
        return await _waited(self._manifest)

    def _manifest(self) -> bytes:
        return self._layout.read(self._layout.named(self._tag, self._digest), _LARGEST_MANIFEST)

    async def read(self, descriptor: oci.Descriptor, limit: int) -> bytes:
        """A small blob or manifest, verified."""
        return await _waited(self._layout.read, descriptor, limit)

    async def bring(self, layer: CachedLayer, chain_id: str) -> None:
        """Copy a layer to the content store and unpack it."""
        await _waited(self._bring, layer, chain_id)

    def _bring(self, layer: CachedLayer, chain_id: str) -> None:
        from ketch.images.unpack import unpack_blob

        content = self._store.content
        if not content.exists(layer.descriptor.digest):
            with content.ingest(layer.descriptor.digest, durable=False) as ingest:
                self._layout.copy(layer.descriptor, ingest.write)
        if not self._store.layers.exists(chain_id):
            unpack_blob(self._store, layer.descriptor.digest, layer.diff_id, chain_id)

    async def put(self, descriptor: oci.Descriptor, opened: Callable[[], IO[bytes]]) -> None:
        """Write a blob, unless it is there."""
        await _waited(self._put, descriptor, opened)

    def _put(self, descriptor: oci.Descriptor, opened: Callable[[], IO[bytes]]) -> None:
        if not self._layout.has(descriptor):
            with opened() as file:
                self._layout.put(descriptor, _pieces(file))

    async def finish(self, descriptor: oci.Descriptor, data: bytes) -> None:
        """Write the manifest, and give it the name."""
        await _waited(self._finish, descriptor, data)

    def _finish(self, descriptor: oci.Descriptor, data: bytes) -> None:
        self._layout.put(descriptor, [data])
        self._layout.name(descriptor, self._tag)


async def _waited(work: Callable[..., T], *arguments: Any) -> T:
    """The result of blocking work in a thread of its own, for the client may stall; errors are Ketch's."""
    try:
        return await to_the_end(in_own_thread(functools.partial(work, *arguments)))
    except OSError as e:
        raise explained(e, "a cache in a directory of the client") from e


class ImagePlace:
    """An image that is here, which may have a cache within itself."""

    def __init__(self, store: ImageStore, image: Image) -> None:
        self._content, self._image = store.content, image

    async def manifest(self) -> bytes:
        """The image's manifest."""
        return await asyncio.to_thread(self._content.read, self._image.manifest)

    async def read(self, descriptor: oci.Descriptor, limit: int) -> bytes:
        """Its configuration."""
        return await asyncio.to_thread(self._content.read, descriptor.digest, limit)

    async def bring(self, layer: CachedLayer, chain_id: str) -> None:
        """Nothing: its layers are here, or lost (DataLoss)."""
        raise DataLoss(f"layer {chain_id} of image {self._image.id} is gone")


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while data := file.read(_CHUNK):
        yield data


async def _read(file: IO[bytes], offset: int) -> AsyncIterator[bytes]:
    """A file in pieces, from an offset on; closes it."""
    with file:
        file.seek(offset)
        while data := await asyncio.to_thread(file.read, _CHUNK):
            yield data
