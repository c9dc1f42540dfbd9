"""Repositories over objects: their blobs, manifests, tags and referrers.

A blob is stored once; a repository has it by a link, whose age says when somebody last relied on it (`gc`).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ketch.oci import digest as digests
from ketch.oci import manifest as oci
from ketch.registry.errors import MANIFEST_BLOB_UNKNOWN, MANIFEST_INVALID, UNAVAILABLE, Refused
from ketch.registry.objects import store as objects
from ketch.registry.objects.store import ObjectMissing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ketch.registry.objects.store import Objects

_CACHED, _CACHED_SIZE = 4096, 64 << 10
_ASKED_AT_ONCE = 32  # repositories: a bucket needs some 20 ms for each
_TOUCH_S = 3600.0
_PATIENCE = 200


class _Content(msgspec.Struct, rename="camel"):
    """The fields of a manifest or index."""

    schema_version: int = 0
    media_type: str = ""
    artifact_type: str = ""
    config: oci.Descriptor | None = None
    layers: list[oci.Descriptor] | None = None
    blobs: list[oci.Descriptor] | None = None
    manifests: list[oci.Descriptor] | None = None
    subject: oci.Descriptor | None = None
    annotations: dict[str, str] | None = None


class StoredManifest(NamedTuple):
    """A stored manifest."""

    digest: str
    media_type: str
    data: bytes


class Repositories:
    """All repositories of one store; ``sparse``: an index may name manifests that are not there."""

    def __init__(self, store: Objects, *, sparse: bool = False) -> None:
        self.store = store
        self._sparse = sparse
        self._small: OrderedDict[str, bytes] = OrderedDict()  # by digest: these never change
        self._listed: set[str] = set()

    # -- keys ----------------------------------------------------------------------------------

    @staticmethod
    def layers(repository: str) -> str:
        """The beginning of the keys of all links to blobs."""
        return f"repositories/{repository}/_layers/"

    @classmethod
    def layer(cls, repository: str, digest: str) -> str:
        """The key of the link to a blob."""
        return cls.layers(repository) + digest.replace(":", "/")

    @staticmethod
    def revisions(repository: str) -> str:
        """The beginning of the keys of all links to manifests."""
        return f"repositories/{repository}/_manifests/revisions/"

    @classmethod
    def revision(cls, repository: str, digest: str) -> str:
        """The key of the link to a manifest."""
        return cls.revisions(repository) + digest.replace(":", "/")

    @staticmethod
    def tag_key(repository: str, tag: str) -> str:
        """The key of a tag's target."""
        return f"repositories/{repository}/_manifests/tags/{tag}"

    # -- blobs ---------------------------------------------------------------------------------

    async def blob_size(self, repository: str, digest: str) -> int | None:
        """The size of a blob of the repository, which is kept for a client that will rely on it; None: missing.

        One that garbage collection is about to take is not there any more.
        """
        link = self.layer(repository, digest)
        try:
            age = time.time() - (await self.store.head(link)).modified
            found = await self.store.head(objects.blob(digest))
        except ObjectMissing:
            return None
        if await self._is_condemned(digest):
            return None
        if age > _TOUCH_S:
            await self.store.put(link, b"")
        return found.size

    async def readable(self, repository: str, digest: str) -> int | None:
        """The size of a blob, for reading it now."""
        try:
            await self.store.head(self.layer(repository, digest))
            return (await self.store.head(objects.blob(digest))).size
        except ObjectMissing:
            return None

    async def link(self, repository: str, digest: str) -> None:
        """Add a blob to the repository, just written or known to another one."""
        await self.claim(digest)
        await self.store.put(self.layer(repository, digest), b"")
        await self.list_in_catalog(repository)

    async def unlink(self, repository: str, digest: str) -> bool:
        """Remove a blob from the repository; False when it is missing."""
        if await self.readable(repository, digest) is None:
            return False
        await self.store.delete(self.layer(repository, digest))
        return True

    async def _is_condemned(self, digest: str) -> bool:
        hexadecimal = digest.partition(":")[2]
        return await self._exists(f"condemned/{hexadecimal}") or await self._exists(f"deleting/{hexadecimal}")

    async def claim(self, digest: str) -> None:
        """Reserve a blob before its write: a collection that is deleting it ends first (UNAVAILABLE)."""
        for _ in range(_PATIENCE):
            if await self._spare(digest):
                return
            await asyncio.sleep(0.05)
        raise Refused(UNAVAILABLE, f"{digest} is being deleted")

    async def _spare(self, digest: str) -> bool:
        """Withdraw a blob from the collection; False when it is too late (see `gc`)."""
        hexadecimal = digest.partition(":")[2]
        if await self._exists(f"condemned/{hexadecimal}"):
            await self.store.delete(f"condemned/{hexadecimal}")
        return not await self._exists(f"deleting/{hexadecimal}")

    async def _exists(self, key: str) -> bool:
        try:
            await self.store.head(key)
        except ObjectMissing:
            return False
        return True

    # -- manifests -----------------------------------------------------------------------------

    async def resolve(self, repository: str, ref: str) -> str | None:
        """The digest of a tag or digest."""
        if ":" in ref:
            return ref
        try:
            return (await self.store.get(self.tag_key(repository, ref))).decode("ascii")
        except ObjectMissing:
            return None

    async def manifest(self, repository: str, ref: str) -> StoredManifest | None:
        """A manifest by tag or digest."""
        digest = await self.resolve(repository, ref)
        if digest is None:
            return None
        try:
            media_type = (await self.store.get(self.revision(repository, digest))).decode()
            data = self._small.get(digest)
            if data is None:
                data = await self.store.get(objects.blob(digest))
        except ObjectMissing:
            return None
        if len(data) <= _CACHED_SIZE:
            self._small[digest] = data
            if len(self._small) > _CACHED:
                self._small.popitem(last=False)
        return StoredManifest(digest, media_type, data)

    async def put_manifest(
        self,
        repository: str,
        data: bytes,
        media_type: str,
        tags: Sequence[str] = (),
        *,
        digest: str = "",
        check: bool = True,
    ) -> tuple[str, str]:
        """Store a manifest, and its tags last; returns its digest and its subject's (empty when it has none).

        ``digest``: the one to store it by, which has been verified; else sha256.
        MANIFEST_INVALID, MANIFEST_BLOB_UNKNOWN with everything that is missing.
        """
        content = parse(data, media_type)
        digest = digest or digests.of(data)
        if check:
            await self._check(repository, content)
        await self.claim(digest)
        await self.store.put(objects.blob(digest), data)
        await self.store.put(self.revision(repository, digest), media_type.encode())
        if content.subject is not None:
            await self._refer(repository, content, content.subject.digest, digest, media_type, len(data))
        for tag in tags:
            await self.store.put(self.tag_key(repository, tag), digest.encode("ascii"))
        await self.list_in_catalog(repository)
        if check:
            await self._check(repository, content)  # again: what it needs may have gone while it was written
        return digest, content.subject.digest if content.subject is not None else ""

    async def _check(self, repository: str, content: _Content) -> None:
        missing = []
        for descriptor in referenced_blobs(content):
            if descriptor.urls:
                continue  # a foreign layer is elsewhere
            size = await self.readable(repository, descriptor.digest)
            if size is None or not await self._spare(descriptor.digest):
                missing.append(descriptor.digest)
            else:
                _check_size(descriptor, size)
        for entry in content.manifests or ():
            size = await self._entry_size(repository, entry)
            if size is not None:
                _check_size(entry, size)
            elif not self._sparse:
                missing.append(entry.digest)
        if missing:
            raise Refused(MANIFEST_BLOB_UNKNOWN, [{"digest": digest} for digest in missing])
        if content.subject is not None:  # which may come later, or never
            size = await self._manifest_size(repository, content.subject.digest)
            if size is not None:
                _check_size(content.subject, size)

    async def _entry_size(self, repository: str, entry: oci.Descriptor) -> int | None:
        """The size of what an index lists; None when it is missing.

        Beside manifests these can be blobs: so builders have their caches in registries (BuildKit, before 0.21).
        """
        size = await self._manifest_size(repository, entry.digest)
        if size is None and entry.media_type not in oci.MANIFESTS | oci.INDEXES and await self._spare(entry.digest):
            size = await self.readable(repository, entry.digest)
        return size

    async def _manifest_size(self, repository: str, digest: str) -> int | None:
        """The size of a manifest of the repository; None when it is missing."""
        try:
            await self.store.head(self.revision(repository, digest))
            return (await self.store.head(objects.blob(digest))).size
        except ObjectMissing:
            return None

    async def _refer(
        self, repository: str, content: _Content, subject: str, digest: str, media_type: str, size: int
    ) -> None:
        config = content.config
        kind = content.artifact_type or (config.media_type if config is not None else "")
        descriptor = {
            "mediaType": media_type,
            "digest": digest,
            "size": size,
            "artifactType": kind,
            **({"annotations": content.annotations} if content.annotations else {}),
        }
        await self.store.put(_referrer(repository, subject, digest), msgspec.json.encode(descriptor))

    async def delete_manifest(self, repository: str, digest: str) -> bool:
        """Delete a manifest and its tags; False when it is missing."""
        key = self.revision(repository, digest)
        if not await self._exists(key):
            return False
        async for tag in self.tags(repository):
            if await self.resolve(repository, tag) == digest:
                await self.store.delete(self.tag_key(repository, tag))
        try:
            content = parse(await self.store.get(objects.blob(digest)), "")
        except (ObjectMissing, Refused):
            content = None
        if content is not None and content.subject is not None:
            await self.store.delete(_referrer(repository, content.subject.digest, digest))
        await self.store.delete(key)
        return True

    async def delete_tag(self, repository: str, tag: str) -> bool:
        """Delete a tag; False when it is missing."""
        key = self.tag_key(repository, tag)
        if not await self._exists(key):
            return False
        await self.store.delete(key)
        return True

    async def referrers(self, repository: str, digest: str, after: str = "") -> AsyncIterator[str]:
        """The digests of a manifest's referrers, in order, after ``after``."""
        prefix = _referrer(repository, digest, "")
        async for found in self.store.list(prefix, _referrer(repository, digest, after) if after else ""):
            yield objects.digest_of(found.key)

    async def referrer(self, repository: str, digest: str, referring: str) -> bytes:
        """The descriptor of a referrer, as JSON; empty when it has just been deleted."""
        try:
            return await self.store.get(_referrer(repository, digest, referring))
        except ObjectMissing:
            return b""

    # -- lists ---------------------------------------------------------------------------------

    async def tags(self, repository: str, after: str = "") -> AsyncIterator[str]:
        """The tags in order, after ``after``."""
        prefix = self.tag_key(repository, "")
        async for found in self.store.list(prefix, prefix + after if after else ""):
            yield found.key.removeprefix(prefix)

    async def all(self, after: str = "") -> AsyncIterator[str]:
        """The names of all repositories, in order of their keys, after ``after``."""
        async for found in self.store.list("catalog/", "catalog/" + _quoted(after) if after else ""):
            yield found.key.removeprefix("catalog/").replace("%2F", "/")

    async def with_manifests(self, after: str = "") -> AsyncIterator[str]:
        """`all`, without repositories that have no manifest any more, or none yet."""
        names: list[str] = []
        async for name in self.all(after):
            names.append(name)
            if len(names) == _ASKED_AT_ONCE:
                for found in await self._with_manifests(names):
                    yield found
                names.clear()
        for found in await self._with_manifests(names):
            yield found

    async def _with_manifests(self, names: Sequence[str]) -> list[str]:
        has = await asyncio.gather(*(self._has_manifest(name) for name in names))
        return [name for name, has_one in zip(names, has, strict=True) if has_one]

    async def _has_manifest(self, repository: str) -> bool:
        async for _ in self.store.list(self.revisions(repository)):
            return True
        return False

    async def exists(self, repository: str) -> bool:
        """Whether anything was ever pushed to the repository."""
        return await self._exists(f"catalog/{_quoted(repository)}")

    async def list_in_catalog(self, repository: str) -> None:
        """Add the repository to the catalog."""
        if repository not in self._listed:
            if not await self.exists(repository):
                await self.store.put(f"catalog/{_quoted(repository)}", b"")
            self._listed.add(repository)


def parse(data: bytes, media_type: str) -> _Content:
    """A manifest's content (MANIFEST_INVALID)."""
    try:
        content = msgspec.json.decode(data, type=_Content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Refused(MANIFEST_INVALID, str(e)) from e
    if media_type and content.media_type and content.media_type != media_type:
        raise Refused(MANIFEST_INVALID, f"it says that it is {content.media_type}, the request {media_type}")
    if content.schema_version != 2:
        raise Refused(MANIFEST_INVALID, f"schema version {content.schema_version} is not supported")
    if content.manifests is not None and (content.config is not None or content.layers):
        raise Refused(MANIFEST_INVALID, "it is an index and a manifest at once")
    subject = [content.subject] if content.subject is not None else []
    for descriptor in (*referenced_blobs(content), *(content.manifests or ()), *subject):
        if not digests.registered(descriptor.digest):
            raise Refused(MANIFEST_INVALID, f"digest `{descriptor.digest[:100]}`")
    return content


def _check_size(descriptor: oci.Descriptor, size: int) -> None:
    """Raise MANIFEST_INVALID for a descriptor with another size, which clients would rely on."""
    if descriptor.size != size:
        message = f"{descriptor.digest}: its descriptor says {descriptor.size} bytes, it has {size}"
        raise Refused(MANIFEST_INVALID, message)


def referenced_blobs(content: _Content) -> list[oci.Descriptor]:
    """The blobs that a manifest needs."""
    config = [content.config] if content.config is not None else []
    return [*config, *(content.layers or ()), *(content.blobs or ())]


def _referrer(repository: str, subject: str, digest: str) -> str:
    return f"repositories/{repository}/_referrers/{subject.partition(':')[2]}/{digest.partition(':')[2]}"


def _quoted(name: str) -> str:
    return name.replace("/", "%2F")
