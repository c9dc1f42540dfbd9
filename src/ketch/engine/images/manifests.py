"""``manifest``: drafts of indexes over images in registries, and inspection without pulling.

An index that is being put together is a file, ``manifests/<digest of its name>.json``, until it is pushed or removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from ketch.oci import digest as digests
from ketch.oci import manifest as oci
from ketch.oci import reference
from ketch.oci.config import ImageConfig
from ketch.remote.repository import decode

if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.images.registries import Registries
    from ketch.oci.reference import Reference
    from ketch.remote.credentials import Credentials
    from ketch.remote.repository import Fetched, Repository

_LARGEST_CONFIG = 8 << 20


class Entry(msgspec.Struct, kw_only=True):
    """One image of an index: its reference, and its descriptor."""

    ref: str
    descriptor: oci.Descriptor


class IndexDraft(msgspec.Struct, kw_only=True):
    """A draft of an index."""

    name: str
    entries: list[Entry] = msgspec.field(default_factory=list)


class Inspected(msgspec.Struct, rename="pascal", frozen=True):
    """A manifest or index, byte for byte, with its descriptor."""

    ref: str
    descriptor: oci.Descriptor
    manifest: msgspec.Raw


class ManifestService:
    """Indexes of one daemon's users; blocking only for small files."""

    def __init__(self, data_root: str, registries: Registries) -> None:
        self._registries = registries
        self._root = os.path.join(data_root, "manifests")

    async def inspect(self, name: str, credentials: Credentials | None) -> Inspected:
        """A manifest or index from its registry (NotFound, Unavailable)."""
        ref = reference.parse(name)
        found = await self._repository(ref, credentials).manifest(ref.digest or ref.tag)
        return Inspected(str(ref), found.descriptor, msgspec.Raw(found.data))

    async def create(self, name: str, refs: list[str], amend: bool, credentials: Credentials | None) -> IndexDraft:
        """Create a draft, or with ``amend`` extend it (AlreadyExists)."""
        key = str(reference.parse(name))
        known = self._load(key)
        if known is not None and not amend:
            raise AlreadyExists(f"manifest list {name} is there already", hint="add to it with --amend")
        draft = known or IndexDraft(name=key)
        for ref in refs:
            entry = await self._entry(ref, credentials)
            draft.entries = [e for e in draft.entries if e.ref != entry.ref] + [entry]
        await asyncio.to_thread(self._store, draft)
        return draft

    def get(self, name: str) -> IndexDraft:
        """The draft of this name (NotFound)."""
        found = self._load(str(reference.parse(name)))
        if found is None:
            raise NotFound(f"No such manifest: {name}", hint="begin it with: ketch manifest create")
        return found

    async def annotate(self, name: str, ref: str, platform: dict[str, Any]) -> IndexDraft:
        """Set the fields of an OCI platform that are given for one of its images (NotFound)."""
        draft = self.get(name)
        wanted = str(reference.parse(ref))
        for entry in draft.entries:
            if entry.ref == wanted:
                before = msgspec.to_builtins(entry.descriptor.platform) if entry.descriptor.platform else {}
                given = {key: value for key, value in platform.items() if value}
                entry.descriptor.platform = msgspec.convert({"architecture": "", **before, **given}, oci.Platform)
                await asyncio.to_thread(self._store, draft)
                return draft
        raise NotFound(f"manifest for image {ref} does not exist in {name}")

    async def push(self, name: str, purge: bool, credentials: Credentials | None) -> str:
        """Push the index, and those of its images that its repository lacks; returns the index's digest."""
        draft = self.get(name)
        if not draft.entries:
            raise Conflict(f"manifest list {name} has no image")
        ref = reference.parse(draft.name)
        target = self._repository(ref, credentials, push=True)
        for entry in draft.entries:
            await self._bring(target, entry, credentials)
        index = oci.Index(manifests=[entry.descriptor for entry in draft.entries], media_type=oci.INDEX)
        digest = await target.put_manifest(ref.tag, oci.encode(index), oci.INDEX)
        if purge:
            self.remove(name)
        return digest

    def remove(self, name: str) -> None:
        """Remove a draft (NotFound)."""
        os.unlink(self._path(self.get(name).name))

    async def _entry(self, name: str, credentials: Credentials | None) -> Entry:
        ref = reference.parse(name)
        repository = self._repository(ref, credentials)
        found = await repository.manifest(ref.digest or ref.tag)
        if found.descriptor.media_type in oci.INDEXES:
            raise InvalidArgument(f"{name} is an index itself", hint="name the images for single platforms")
        found.descriptor.platform = await _platform(repository, found, name)
        return Entry(ref=str(ref), descriptor=found.descriptor)

    async def _bring(self, target: Repository, entry: Entry, credentials: Credentials | None) -> None:
        ref = reference.parse(entry.ref)
        if ref.domain != target.reference.domain:
            raise InvalidArgument(f"{entry.ref} is in another registry than the index", hint="push it there first")
        digest = entry.descriptor.digest
        if ref.path == target.reference.path or await target.head(digest) is not None:
            return
        found = await self._repository(ref, credentials).manifest(digest)
        manifest: oci.Manifest = decode(found.data, oci.Manifest, f"manifest of {entry.ref}")
        for blob in (manifest.config, *manifest.layers):
            there = blob.urls or await target.blob_size(blob.digest) is not None
            if not there and not await target.mount(blob.digest, ref.path):
                raise InvalidArgument(
                    f"push {target.name}: the registry does not take {blob.digest} over from {ref.path}",
                    hint="push the image to the index's own repository first",
                )
        await target.put_manifest(digest, found.data, found.descriptor.media_type)

    def _repository(self, ref: Reference, credentials: Credentials | None, push: bool = False) -> Repository:
        return self._registries.remotes.repository(ref, credentials, push=push)

    def _path(self, key: str) -> str:
        return os.path.join(self._root, digests.hexadecimal(digests.of(key.encode())) + ".json")

    def _load(self, key: str) -> IndexDraft | None:
        with contextlib.suppress(FileNotFoundError), open(self._path(key), "rb") as f:
            return msgspec.json.decode(f.read(), type=IndexDraft)
        return None

    def _store(self, draft: IndexDraft) -> None:
        os.makedirs(self._root, mode=0o710, exist_ok=True)
        path = self._path(draft.name)
        with open(path + ".new", "wb") as f:
            f.write(msgspec.json.encode(draft))
            f.flush()
            os.fsync(f.fileno())
        os.rename(path + ".new", path)


async def _platform(repository: Repository, found: Fetched, name: str) -> oci.Platform | None:
    """The platform in an image's configuration; None for what is no image."""
    manifest: oci.Manifest = decode(found.data, oci.Manifest, f"manifest of {name}")
    if manifest.config.media_type not in oci.CONFIGS:
        return None
    if manifest.config.size > _LARGEST_CONFIG:
        raise InvalidArgument(f"{name}: its configuration is larger than {_LARGEST_CONFIG} bytes")
    async with repository.blob(manifest.config) as (_, pieces):
        raw = b"".join([piece async for piece in pieces])
    config: ImageConfig = decode(raw, ImageConfig, f"configuration of {name}")
    return oci.Platform(architecture=config.architecture, os=config.os, variant=config.variant)
