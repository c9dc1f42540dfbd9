"""Exported caches: of the keys of a build's results, all keys that they depend on, as BuildKit reads them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ketch.build.cache.exchange.config import (
    NO_PARENT,
    CacheConfig,
    CacheConfigRecord,
    CacheLayer,
    LayerResult,
    RecordInput,
)
from ketch.build.cache.keys import is_random

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ketch.build.cache.exchange.imports import CachedLayer
    from ketch.build.cache.records import CacheRecords
    from ketch.build.cache.schema import CacheKey, CacheResult

INLINE = "moby.buildkit.cache.v0"
"""The field of an image's configuration that has its cache's records."""


class ExportedKey(NamedTuple):
    """A key with its links, and the result that goes with it: layers of this machine, and when it was made."""

    id: str
    step: str
    inputs: Sequence[Sequence[tuple[str, str]]]
    layers: tuple[str, ...] = ()
    created: int = 0


def keys_of(records: CacheRecords, roots: Iterable[str], wanted: Callable[[CacheResult], bool]) -> list[ExportedKey]:
    """The keys that results depend on, those first that need nothing; without those that mean something once only.

    ``wanted`` tells of which results the layers go along.  A key whose input has no key that others can find is left
    out, and all that depend on it.
    """
    order = _order(records, roots)
    found: dict[str, ExportedKey] = {}
    for key_id in order:
        key = records.key(key_id)
        if key is None or not key.inputs:
            step = key.step if key is not None else key_id
            found[key_id] = ExportedKey(key_id, step, ())
            continue
        inputs = [[(one.source, one.selector) for one in links if one.source in found] for links in key.inputs]
        if all(inputs):
            result = next((one for one in records.results_of(key_id) if wanted(one)), None)
            layers, created = (tuple(result.layers), _made(key, result)) if result is not None else ((), 0)
            found[key_id] = ExportedKey(key_id, key.step, inputs, layers, created)
    return list(found.values())


def _made(key: CacheKey, result: CacheResult) -> int:
    return next((one.created for one in key.results if one.result == result.id), result.created)


def _order(records: CacheRecords, roots: Iterable[str]) -> list[str]:
    """Keys, inputs first; links that lead back in a circle are not followed.  Does not recurse."""
    order: list[str] = []
    entered: set[str] = set()
    stack = [(key_id, False) for key_id in roots]
    while stack:
        key_id, done = stack.pop()
        if done:
            order.append(key_id)
        elif key_id not in entered and not is_random(key_id):
            entered.add(key_id)
            stack.append((key_id, True))
            key = records.key(key_id)
            stack += [(one.source, False) for links in (key.inputs if key else ()) for one in links]
    return order


class _Chains:
    """Layers upon each other, each once, and their numbers."""

    def __init__(self, blobs: Mapping[str, CachedLayer]) -> None:
        self.layers: list[CacheLayer] = []
        self._blobs = blobs
        self._numbers: dict[tuple[str, int], int] = {}

    def top(self, layers: Sequence[str]) -> int:
        """The number of the topmost of layers that lie upon each other; all below it have theirs, too."""
        at = NO_PARENT
        for layer in layers:
            key = (self._blobs[layer].descriptor.digest, at)
            if key not in self._numbers:
                self._numbers[key] = len(self.layers)
                self.layers.append(CacheLayer(*key))
            at = self._numbers[key]
        return at


def config_of(keys: Sequence[ExportedKey], blobs: Mapping[str, CachedLayer]) -> CacheConfig:
    """The configuration of a cache of keys, inputs first; ``blobs`` by the layers of their results."""
    chains = _Chains(blobs)
    return CacheConfig(chains.layers, _records(keys, chains.top))


def inline_records(keys: Sequence[ExportedKey], layers: Sequence[str]) -> str:
    """The records for an image of these layers, as its configuration has them: of results that are part of it."""
    parts = {tuple(layers[:end]) for end in range(1, len(layers) + 1)}
    kept = [one if one.layers in parts else one._replace(layers=()) for one in keys]
    records = _records(kept, lambda chosen: len(chosen) - 1)
    return base64.b64encode(msgspec.json.encode(records)).decode()


def _records(keys: Sequence[ExportedKey], top: Callable[[Sequence[str]], int]) -> list[CacheConfigRecord]:
    numbers = {key.id: number for number, key in enumerate(keys)}
    return [
        CacheConfigRecord(
            digest=key.step,
            inputs=[[RecordInput(numbers[source], selector) for source, selector in links] for links in key.inputs],
            layers=[LayerResult(top(key.layers), _time(key.created))] if key.layers else [],
        )
        for key in keys
    ]


def _time(nanoseconds: int) -> str:
    whole, rest = divmod(nanoseconds, 10**9)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09d}".rstrip("0").rstrip(".") + "Z"
