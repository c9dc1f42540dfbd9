"""Records of the build cache: what was built, by what it depends on, so that it need not be built again.

    operation, keys of its inputs ──link──► key ──► results: trees of layers

Look-ups are answered from memory, from any thread.  What is added is there for look-ups at once and written by `flush`,
after its layers are on the disk: no row names what a power cut could take away.  Rows without a use are removed with
what made them needless.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ketch.build.cache.index import CacheIndex, CacheLink
from ketch.build.cache.keys import KeySource, is_random
from ketch.build.cache.schema import KEYS, RESULTS, CacheKey, CacheResult, InputLink, KeyResult, result_id
from ketch.failpoints import failpoint
from ketch.storage.database.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from sqlite3 import Connection

    from ketch.build.tree import Tree
    from ketch.storage.database.db import Database

log = logging.getLogger(__name__)
_T = TypeVar("_T", bound=msgspec.Struct)
MOST_LINKS = 100  # that are kept for one input of a key: the oldest go, which new sources of the same content replaced


class KeyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is found or made: its step, the keys of its inputs, and what to tell of it.

    ``operation`` is the digest of the ``definition``, the operation's bytes without its inputs.
    """

    id: str
    step: str
    inputs: Sequence[Sequence[KeySource]] = ()
    name: str = ""
    operation: str = ""
    definition: bytes = b""


class CacheRecords:
    """All records of one daemon."""

    def __init__(self, db: Database, now: Callable[[], int] = time.time_ns) -> None:
        """``now`` is the time in ns since 1970."""
        self._db = db
        self._now = now
        self._lock = threading.RLock()
        self._flushing = threading.Lock()
        self._index = CacheIndex()
        self._key_records, self._result_records = Records(KEYS), Records(RESULTS)
        self._changed_keys: set[str] = set()
        self._changed_results: set[str] = set()
        self._fresh: set[str] = set()  # results whose layers may not be on the disk
        self._dropped: set[str] = set()  # layers that no result needs any more
        self._users: dict[str, int] = {}
        self._operations = {str(row["id"]) for row in db.query("SELECT id FROM build_operations")}
        self._new_operations: dict[str, bytes] = {}
        for result in self._read("build_results", self._result_records, self._changed_results):
            self._index.put_result(result)
        for key in self._read("build_keys", self._key_records, self._changed_keys):
            self._index.put_key(key)
        self._forget_dangling()

    def _read(self, table: str, records: Records[_T], changed: set[str]) -> list[_T]:
        found: list[_T] = []
        for row in self._db.query(f"SELECT id, record FROM {table} ORDER BY rowid"):
            try:
                found.append(records.read(row["id"], row["record"]))
            except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as e:
                log.error("record %s of the build cache cannot be read, and is removed: %s", row["id"], e)
                changed.add(row["id"])
        return found

    def _forget_dangling(self) -> None:
        """Remove, at a start, what names a result that is not there, and results without a key."""
        for key in list(self._index.keys.values()):
            kept = [one for one in key.results if one.result in self._index.results]
            if len(kept) != len(key.results):
                self._put(msgspec.structs.replace(key, results=kept))
        for result in [one for one in self._index.results if not self._index.owners(one)]:
            self._drop_result(result)
        self._drop_idle(list(self._index.keys))

    def now(self) -> int:
        """The time by which results are dated, in ns since 1970."""
        return self._now()

    # -- looking -----------------------------------------------------------------------------------

    def layers(self) -> set[str]:
        """The ids of all layers that results consist of."""
        with self._lock:
            return set(self._index.layers)

    def targets(self, source: str, number: int, step: str, selector: str = "") -> Sequence[str]:
        """The keys to which links lead from a key of input ``number``, through a step (`keys.root_key`)."""
        with self._lock:
            return self._index.targets(CacheLink(source, number, step, selector))

    def results_of(self, key: str) -> list[CacheResult]:
        """The results of a key, the newest first."""
        with self._lock:
            found = self._index.keys.get(key)
            if found is None:
                return []
            newest = sorted(found.results, key=lambda one: -one.created)
            return [self._index.results[one.result] for one in newest if one.result in self._index.results]

    def key(self, key_id: str) -> CacheKey | None:
        """A key with its links; None: nothing is recorded of it."""
        with self._lock:
            return self._index.keys.get(key_id)

    def definition(self, operation: str) -> bytes | None:
        """An operation's bytes without its inputs, by their digest; blocking."""
        with self._lock:
            if operation in self._new_operations:
                return self._new_operations[operation]
        rows = self._db.query("SELECT data FROM build_operations WHERE id = ?", (operation,))
        return bytes(rows[0]["data"]) if rows else None

    def all_keys(self) -> list[CacheKey]:
        """All keys."""
        with self._lock:
            return list(self._index.keys.values())

    def results(self) -> list[CacheResult]:
        """All results."""
        with self._lock:
            return list(self._index.results.values())

    def in_use(self) -> set[str]:
        """The results that builds use just now, by their ids."""
        with self._lock:
            return set(self._users)

    # -- adding ------------------------------------------------------------------------------------

    def link(self, facts: KeyFacts) -> None:
        """Record a key with its links; those that it has already stay."""
        if is_random(facts.id):
            return
        with self._lock:
            known = self._index.keys.get(facts.id)
            key = known or CacheKey(
                id=facts.id, step=facts.step, name=facts.name, operation=facts.operation, created=self._now()
            )
            if facts.definition and facts.operation not in self._operations:
                self._operations.add(facts.operation)
                self._new_operations[facts.operation] = facts.definition
            inputs = [_joined(key.inputs, number, sources) for number, sources in enumerate(facts.inputs)]
            if known is None or inputs != known.inputs:
                self._put(msgspec.structs.replace(key, inputs=inputs or key.inputs))

    def add(self, facts: KeyFacts, tree: Tree, *, description: str, kind: str) -> None:
        """Record a result, whose layers the caller's lease holds until the next `flush` has ended.

        An older result of the key is forgotten.
        """
        if is_random(facts.id):
            return
        with self._lock:
            self.link(facts)
            key, now = self._index.keys[facts.id], self._now()
            found = result_id(tree.layers)
            known = self._index.results.get(found) or CacheResult(
                id=found, layers=list(tree.layers), description=description, kind=kind, created=now
            )
            self._index.put_result(msgspec.structs.replace(known, last_used=now, usage_count=known.usage_count + 1))
            self._changed_results.add(found)
            self._fresh.add(found)
            older = [one.result for one in key.results if one.result != found]
            self._put(
                msgspec.structs.replace(
                    key, results=[KeyResult(found, now)], name=facts.name, operation=facts.operation
                )
            )
            for one in older:
                if not self._index.owners(one) and one not in self._users:
                    self._drop_result(one)

    def use(self, result: str) -> None:
        """Record that a result was used."""
        with self._lock:
            found = self._index.results.get(result)
            if found is not None:
                used = msgspec.structs.replace(found, last_used=self._now(), usage_count=found.usage_count + 1)
                self._index.put_result(used)
                self._changed_results.add(result)

    def hold(self, result: str) -> None:
        """Keep a result from being pruned until `release`."""
        with self._lock:
            self._users[result] = self._users.get(result, 0) + 1

    def release(self, results: Iterable[str]) -> None:
        """End what `hold` began."""
        with self._lock:
            for result in results:
                self._users[result] -= 1
                if not self._users[result]:
                    del self._users[result]
                    if result in self._index.results and not self._index.owners(result):
                        self._drop_result(result)

    # -- removing ----------------------------------------------------------------------------------

    def forget(self, results: Iterable[str]) -> None:
        """Remove results, and the keys that lead to nothing then; written by the next `flush`."""
        with self._lock:
            for result in results:
                if result in self._index.results:
                    self._drop_result(result)

    def forget_unused(self, result: str) -> bool:
        """Remove a result that no build uses; False: it is in use, or gone."""
        with self._lock:
            if result in self._users or result not in self._index.results:
                return False
            self._drop_result(result)
            return True

    def dropped(self) -> set[str]:
        """The layers that no result needs any more, each told once: the caller has them collected after a `flush`."""
        with self._lock:
            found, self._dropped = self._dropped, set()
            return found.difference(self._index.layers)

    def _drop_result(self, result: str) -> None:
        owners = self._index.owners(result)
        gone = self._index.drop_result(result)
        if gone is not None:
            self._dropped.update(gone.layers)
        self._changed_results.add(result)
        self._fresh.discard(result)
        for owner in owners:
            key = self._index.keys[owner]
            self._put(msgspec.structs.replace(key, results=[one for one in key.results if one.result != result]))
        self._drop_idle(owners)

    def _drop_idle(self, keys: Iterable[str]) -> None:
        for idle in self._index.idle(keys):
            self._index.drop_key(idle)
            self._changed_keys.add(idle)

    def _put(self, key: CacheKey) -> None:
        self._index.put_key(key)
        self._changed_keys.add(key.id)

    # -- writing -----------------------------------------------------------------------------------

    def unwritten(self) -> set[str]:
        """The layers of results that have no row yet."""
        with self._lock:
            return {layer for one in self._fresh for layer in self._index.results[one].layers}

    def flush(self, sync: Callable[[set[str]], None], size: Callable[[str], int]) -> None:
        """Write what has changed; blocking.  ``sync`` brings layers to the disk before, ``size`` has their bytes.

        Where that fails (KetchError), what relies on them is forgotten.
        """
        with self._flushing:
            with self._lock:
                keys, self._changed_keys = self._changed_keys, set()
                results, self._changed_results = self._changed_results, set()
                fresh, self._fresh = self._fresh, set()
                layers = {layer for one in fresh for layer in self._index.results[one].layers}
            try:
                if layers:
                    sync(layers)
                    self._measure(fresh, size)
                    failpoint("build.cache-layers-synced")
                if keys or results:
                    self._write(keys, results, durable=bool(fresh))
                    failpoint("build.cache-written")
            except BaseException:
                with self._lock:
                    self._changed_keys |= keys
                    self._changed_results |= results
                    self.forget(fresh)
                raise

    def _measure(self, results: set[str], size: Callable[[str], int]) -> None:
        """Note the sizes of the layers of results, of which each is measured once."""
        size = functools.cache(size)
        for one in sorted(results):
            with self._lock:
                result = self._index.results.get(one)
            if result is not None and len(result.sizes) != len(result.layers):
                sizes = [size(layer) for layer in result.layers]
                with self._lock:
                    if (result := self._index.results.get(one)) is not None:
                        self._index.put_result(msgspec.structs.replace(result, sizes=sizes))

    def _write(self, keys: set[str], results: set[str], *, durable: bool) -> None:
        with self._lock:
            key_rows = [(one, self._index.keys.get(one)) for one in sorted(keys)]
            result_rows = [(one, self._index.results.get(one)) for one in sorted(results)]
            # What was added meanwhile waits for its own turn: its layers are not on the disk yet.
            late = self._fresh
            encoded = [(one, self._key_records.write(one, _without(key, late))) for one, key in key_rows if key]
            kept = [(one, self._result_records.write(one, r)) for one, r in result_rows if r and one not in late]
            gone_keys = [one for one, key in key_rows if key is None]
            gone_results = [one for one, result in result_rows if result is None]
            operations = dict(self._new_operations)
            needless = self._needless_operations() if gone_keys else []
        with self._db.transaction(durable=durable, grows=bool(kept)) as tx:
            _upsert(tx, "build_results", kept)
            _upsert(tx, "build_keys", encoded)
            tx.executemany("INSERT OR IGNORE INTO build_operations VALUES (?, ?)", operations.items())
            tx.executemany("DELETE FROM build_operations WHERE id = ?", [(one,) for one in needless])
            tx.executemany("DELETE FROM build_keys WHERE id = ?", [(one,) for one in gone_keys])
            tx.executemany("DELETE FROM build_results WHERE id = ?", [(one,) for one in gone_results])
        with self._lock:
            self._operations.difference_update(needless)
            for one in operations:
                self._new_operations.pop(one, None)
        for one in gone_keys:
            self._key_records.forget(one)
        for one in gone_results:
            self._result_records.forget(one)

    def _needless_operations(self) -> list[str]:
        """Operations that no key is of any more."""
        return sorted(self._operations.difference(key.operation for key in self._index.keys.values()))


def _upsert(tx: Connection, table: str, rows: Iterable[tuple[str, bytes]]) -> None:
    sql = f"INSERT INTO {table} VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record"
    tx.executemany(sql, rows)


def _without(key: CacheKey, results: Collection[str]) -> CacheKey:
    kept = [one for one in key.results if one.result not in results]
    return key if len(kept) == len(key.results) else msgspec.structs.replace(key, results=kept)


def _joined(known: Sequence[Sequence[InputLink]], number: int, sources: Sequence[KeySource]) -> list[InputLink]:
    """The links of one input, with those that are new; random keys are left out."""
    links = list(known[number]) if number < len(known) else []
    added = [InputLink(one.key, one.selector) for one in sources if not is_random(one.key)]
    links += [one for one in dict.fromkeys(added) if one not in links]
    if len(links) > MOST_LINKS:
        links = [one for one in links if one not in added] + added
    return links[-MOST_LINKS:]
