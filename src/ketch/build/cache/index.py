"""The index of the build cache in memory: which key a link leads to, which results a key has, what needs a layer.

Not locked: `records` does that.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ketch.build.cache.schema import CacheKey, CacheResult


class CacheLink(NamedTuple):
    """A way from a key of input ``number`` through a step to other keys."""

    source: str
    number: int
    step: str
    selector: str


class CacheIndex:
    """Keys and results by their ids, and what refers to them."""

    def __init__(self) -> None:
        self.keys: dict[str, CacheKey] = {}
        self.results: dict[str, CacheResult] = {}
        self.layers: Counter[str] = Counter()
        self._targets: dict[CacheLink, dict[str, None]] = {}
        self._dependents: dict[str, Counter[str]] = {}  # by a key: those to which links lead from it
        self._owners: dict[str, set[str]] = {}  # by a result: its keys

    def put_key(self, key: CacheKey) -> None:
        """Add a key, or replace it."""
        self.drop_key(key.id)
        self.keys[key.id] = key
        for link in _links(key):
            self._targets.setdefault(link, {})[key.id] = None
            self._dependents.setdefault(link.source, Counter())[key.id] += 1
        for one in key.results:
            self._owners.setdefault(one.result, set()).add(key.id)

    def drop_key(self, key_id: str) -> CacheKey | None:
        """Remove a key and the links that lead to it."""
        key = self.keys.pop(key_id, None)
        if key is None:
            return None
        for link in _links(key):
            _discard(self._targets, link, key_id)
            dependents = self._dependents.get(link.source)
            if dependents is not None:
                dependents[key_id] -= 1
                if not dependents[key_id]:
                    del dependents[key_id]
                if not dependents:
                    del self._dependents[link.source]
        for one in key.results:
            owners = self._owners.get(one.result, set())
            owners.discard(key_id)
            if not owners:
                self._owners.pop(one.result, None)
        return key

    def put_result(self, result: CacheResult) -> None:
        """Add a result, or replace it."""
        self.drop_result(result.id)
        self.results[result.id] = result
        self.layers.update(result.layers)

    def drop_result(self, result_id: str) -> CacheResult | None:
        """Remove a result; keys still name it."""
        result = self.results.pop(result_id, None)
        if result is not None:
            for layer in result.layers:
                self.layers[layer] -= 1
                if not self.layers[layer]:
                    del self.layers[layer]
        return result

    def targets(self, link: CacheLink) -> tuple[str, ...]:
        """The keys that a link leads to, in the order in which they came."""
        return tuple(self._targets.get(link, ()))

    def owners(self, result_id: str) -> list[str]:
        """The keys that have a result."""
        return sorted(self._owners.get(result_id, ()))

    def idle(self, keys: Iterable[str]) -> list[str]:
        """Keys, of these and of those that lead to them, that have no result and lead to no key that has one."""
        gone: dict[str, None] = {}
        pending = list(keys)
        while pending:
            key = self.keys.get(pending.pop())
            if key is None or key.id in gone or any(one.result in self.results for one in key.results):
                continue
            if all(dependent in gone for dependent in self._dependents.get(key.id, ())):
                gone[key.id] = None
                pending += [link.source for link in _links(key)]
        return list(gone)


def _links(key: CacheKey) -> Iterator[CacheLink]:
    for number, sources in enumerate(key.inputs):
        for one in sources:
            yield CacheLink(one.source, number, key.step, one.selector)


def _discard(table: dict[CacheLink, dict[str, None]], link: CacheLink, key_id: str) -> None:
    found = table.get(link)
    if found is not None:
        found.pop(key_id, None)
        if not found:
            del table[link]
