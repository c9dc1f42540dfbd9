"""Garbage collection while the registry serves, also while other processes serve the same store.

A blob is garbage when no manifest of any repository needs it and nobody has written, linked or asked for it for
``grace`` seconds.  It goes in two runs at least ``grace`` apart:

    condemned/HEX      written by the first.  Who asks for the blob to rely on it is told that it is not there, and
                       uploads it again; a manifest that needs it, or a new link, takes the mark away.
    deleting/HEX       written by the second, which then looks whether the mark is still there, and only then deletes.
                       Who takes a mark away looks for this afterwards: one of the two always sees the other.

So a push is only ever broken when it takes longer than ``grace`` from its first question to its manifest.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from ketch.oci.digest import hexadecimal
from ketch.registry.errors import Refused
from ketch.registry.objects.store import ObjectMissing, blob, digest_of
from ketch.registry.repositories import parse, referenced_blobs

if TYPE_CHECKING:
    from ketch.registry.repositories import Repositories

_STALE_S = 60.0


class Report(msgspec.Struct):
    """The result of a collection."""

    repositories: int = 0
    manifests: int = 0
    blobs: int = 0
    condemned: int = 0
    deleted_manifests: int = 0
    deleted_blobs: int = 0
    deleted_bytes: int = 0
    deleted_uploads: int = 0


class Collector:
    """One collection over a store."""

    def __init__(self, repositories: Repositories, grace_s: float, *, untagged: bool = False) -> None:
        self._repositories, self._store = repositories, repositories.store
        self._grace_s, self._untagged = grace_s, untagged
        self._now = time.time()
        self._needed: set[str] = set()
        self._relied: dict[str, float] = {}  # digest → when a link to it was written last
        self.report = Report()

    async def run(self) -> Report:
        """Mark what is in use, then delete the rest."""
        await self._uploads()
        async for name in self._repositories.all():
            self.report.repositories += 1
            await self._repository(name)
        await self._blobs()
        return self.report

    def _is_old(self, moment: float) -> bool:
        return self._now - moment >= self._grace_s

    async def _repository(self, name: str) -> None:
        manifests: dict[str, float] = {}
        async for found in self._store.list(self._repositories.revisions(name)):
            manifests[digest_of(found.key)] = found.modified
        needs = {digest: await self._needs(digest) for digest in manifests}
        if self._untagged:
            for digest in await self._without_tag(name, manifests, needs):
                await self._repositories.delete_manifest(name, digest)
                self.report.deleted_manifests += 1
                needs.pop(digest)
        self.report.manifests += len(needs)
        self._needed.update(needs, *needs.values())
        async for found in self._store.list(self._repositories.layers(name)):
            digest = digest_of(found.key)
            self._relied[digest] = max(self._relied.get(digest, 0), found.modified)

    async def _needs(self, digest: str) -> set[str]:
        try:
            content = parse(await self._store.get(blob(digest)), "")
        except (ObjectMissing, Refused):
            return set()
        inner = {descriptor.digest for descriptor in content.manifests or ()}
        return inner | {descriptor.digest for descriptor in referenced_blobs(content)}

    async def _without_tag(self, name: str, manifests: dict[str, float], needs: dict[str, set[str]]) -> list[str]:
        """Untagged manifests: not reachable from a tag through indexes, nor referrers of a kept one."""
        kept: set[str] = set()
        waiting = [d async for t in self._repositories.tags(name) if (d := await self._repositories.resolve(name, t))]
        while waiting:
            digest = waiting.pop()
            if digest in kept or digest not in manifests:
                continue
            kept.add(digest)
            waiting += [needed for needed in needs[digest] if needed in manifests]
            waiting += [referrer async for referrer in self._repositories.referrers(name, digest)]
        return [digest for digest, moment in manifests.items() if digest not in kept and self._is_old(moment)]

    async def _blobs(self) -> None:
        async for found in self._store.list("blobs/"):
            self.report.blobs += 1
            digest = digest_of(found.key)
            mark = f"condemned/{hexadecimal(digest)}"
            try:
                condemned = (await self._store.head(mark)).modified
            except ObjectMissing:
                condemned = None
            relied = max(found.modified, self._relied.get(digest, 0))
            if digest in self._needed or not self._is_old(relied):
                if condemned is not None:
                    await self._store.delete(mark)
            elif condemned is None:
                await self._store.put(mark, b"")
                self.report.condemned += 1
            elif self._is_old(condemned):
                await self._delete(digest, found.size)
        async for found in self._store.list("deleting/"):  # what a run that was killed has left
            if time.time() - found.modified > _STALE_S:
                await self._store.delete(found.key)

    async def _delete(self, digest: str, size: int) -> None:
        claim, mark = f"deleting/{hexadecimal(digest)}", f"condemned/{hexadecimal(digest)}"
        await self._store.put(claim, b"")
        try:
            await self._store.head(mark)
        except ObjectMissing:  # somebody needs it again
            await self._store.delete(claim)
            return
        await self._store.delete(blob(digest))
        async for name in self._repositories.all():
            await self._store.delete(self._repositories.layer(name, digest))
        await self._store.delete(mark)
        await self._store.delete(claim)
        self.report.deleted_blobs += 1
        self.report.deleted_bytes += size

    async def _uploads(self) -> None:
        latest: dict[str, float] = {}
        async for found in self._store.list("uploads/"):
            name = found.key.split("/")[1]
            latest[name] = max(latest.get(name, 0), found.modified)
        for name, moment in latest.items():
            if self._is_old(moment):
                await self._store.discard(name)
                self.report.deleted_uploads += 1
