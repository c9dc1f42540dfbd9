"""The keeper of the build cache: how much it takes, what is removed of it when somebody asks and after builds."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Protocol

import msgspec

from ketch.build.cache.pruning import policy, usage
from ketch.build.cache.schema import result_id
from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from ketch.build.cache.pruning.policy import PruneOptions
    from ketch.build.cache.pruning.usage import UsageRow
    from ketch.build.cache.records import CacheRecords
    from ketch.build.providers import BuildSnapshots, KeptRecord, KeptStore

log = logging.getLogger(__name__)
_INTERVAL = 60.0  # seconds between collections


class KeptCopies(Protocol):
    """The copies of clients' directories that are kept for their next build.  From any thread, quick."""

    def uses(self) -> Mapping[str, int]:
        """The layers of all copies, with the time of their last use in ns since 1970."""
        ...

    def forget(self, layers: Collection[str]) -> None:
        """Forget the copies with these layers."""
        ...


class CacheStores(msgspec.Struct, frozen=True, kw_only=True):
    """All that the build cache consists of: records with their layers, copies of contexts, what else is kept.

    ``image_layers`` has the layers that images need; ``disk`` is a path on the disk that is to have free space.
    """

    records: CacheRecords
    snapshots: BuildSnapshots
    image_layers: Callable[[], AbstractSet[str]]
    disk: str
    kept: Sequence[KeptStore] = ()
    copies: KeptCopies | None = None


class CacheKeeper:
    """One for the daemon, in its event loop; ``rules`` are the collections that are done after builds."""

    def __init__(self, stores: CacheStores, rules: Sequence[PruneOptions] = ()) -> None:
        self._stores = stores
        self.rules = rules
        self._pruning = asyncio.Lock()
        self._collecting: asyncio.Task[None] | None = None
        self._collected = -_INTERVAL

    async def usage(self) -> list[UsageRow]:
        """A row for each record, copy and directory."""
        stores = self._stores
        kept = [(store, store.records()) for store in stores.kept]
        return await asyncio.to_thread(self._rows, kept)

    def _rows(self, kept: Sequence[tuple[KeptStore, Sequence[KeptRecord]]]) -> list[UsageRow]:
        stores = self._stores
        records = stores.records
        found = usage.rows_of_results(records.results(), records.in_use(), stores.image_layers())
        if stores.copies is not None:
            copies = stores.copies.uses()
            found += usage.rows_of_copies(copies, {layer: self._size(layer) for layer in copies})
        for store, things in kept:
            found += usage.rows_of_kept(things, {one.name: store.size(one.name) for one in things})
        return found

    def _size(self, layer: str) -> int:
        try:
            return self._stores.snapshots.size(layer)
        except KetchError:
            return 0  # it has gone meanwhile

    async def prune(self, options: PruneOptions) -> list[UsageRow]:
        """Remove what the options say, what was used least first; returns the rows of what is gone."""
        async with self._pruning:
            return await self._prune(options)

    async def _prune(self, options: PruneOptions) -> list[UsageRow]:
        removed: list[UsageRow] = []
        rows = await self.usage()
        total = sum(row.size for row in rows if not row.shared)
        kept = policy.kept_bytes(total, await asyncio.to_thread(self._free), options)
        queue = policy.PruneQueue(rows, options, time.time_ns())
        while (row := queue.next()) is not None:
            if kept and total < kept:
                break
            if await self._remove(row):
                queue.removed(row)
                removed.append(row)
                total -= 0 if row.shared else row.size
        await asyncio.to_thread(self._write)
        return removed

    def _free(self) -> int:
        found = os.statvfs(self._stores.disk)
        return found.f_bavail * found.f_frsize

    async def _remove(self, row: UsageRow) -> bool:
        stores = self._stores
        if row.kind == usage.LOCAL_SOURCE and row.mutable:
            return await asyncio.to_thread(self._forget_copy, row.id)
        if row.mutable:
            for things in stores.kept:
                if await things.remove(row.id) >= 0:
                    return True
            return False
        return stores.records.forget_unused(row.id)

    def _forget_copy(self, name: str) -> bool:
        stores = self._stores
        layers = [layer for layer in stores.copies.uses() if result_id([layer]) == name] if stores.copies else []
        with stores.snapshots.lease() as lease:  # at its end they are removed
            lease.hold(*layers)
            if stores.copies is not None:
                stores.copies.forget(layers)
        return bool(layers)

    def _write(self) -> None:
        """Write what was removed, and have the layers removed that nothing needs then."""
        stores = self._stores
        with stores.snapshots.lease() as lease:
            lease.hold(*stores.records.unwritten(), *stores.records.dropped())
            stores.records.flush(stores.snapshots.sync, stores.snapshots.size)

    def collect_later(self) -> None:
        """Have the rules carried out in the background, at most once a minute; to be called when a build has ended."""
        if self.rules and (self._collecting is None or self._collecting.done()):
            self._collecting = asyncio.get_running_loop().create_task(self._collect())

    async def _collect(self) -> None:
        await asyncio.sleep(max(self._collected + _INTERVAL - time.monotonic(), 0))
        self._collected = time.monotonic()
        for rule in self.rules:
            try:
                removed = await self.prune(rule)
            except (KetchError, OSError) as e:
                log.warning("collect garbage in the build cache: %s", e)
                return
            if removed:
                freed = sum(row.size for row in removed)
                log.info("the build cache was more than it may be: %d records removed, %d bytes", len(removed), freed)

    async def close(self) -> None:
        """End a collection under way."""
        if self._collecting is not None and not self._collecting.done():
            self._collecting.cancel()
            await asyncio.wait([self._collecting])
