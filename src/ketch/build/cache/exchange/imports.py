"""Imported caches: their keys and links, as look-ups ask for them; layers come here when a result is used."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ketch.build.cache.exchange.config import chain, depths
from ketch.build.cache.keys import KeySource, derived_key
from ketch.errors import InvalidArgument
from ketch.storage.snapshots.overlay import MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ketch.build.cache.exchange.config import CacheConfig, CacheConfigRecord, RecordInput
    from ketch.build.operation import Work
    from ketch.build.tree import Tree
    from ketch.oci.manifest import Descriptor


class CachedLayer(NamedTuple):
    """A layer of an exchanged cache: its blob, and the digest of its tar."""

    descriptor: Descriptor
    diff_id: str


class LayerLoader(Protocol):
    """One who brings layers of an imported cache here."""

    async def load(self, layers: Sequence[CachedLayer], work: Work) -> Tree:
        """Fetch and unpack layers, lowest first, unless they are here; the work's lease holds them (KetchError)."""
        ...


class LazyResult:
    """A result of an imported cache, of which only the names of its layers are here.

    ``layers`` gives them, lowest first: of many results upon each other the lists would be too much to be kept.
    """

    def __init__(self, layers: Callable[[], Sequence[CachedLayer]], created: int, loader: LayerLoader) -> None:
        self.layers = layers
        self.created = created
        self._loader = loader

    async def load(self, work: Work) -> Tree:
        """Bring it here; the work's lease holds it (KetchError)."""
        return await self._loader.load(self.layers(), work)


class _Link(NamedTuple):
    source: str
    number: int
    step: str
    selector: str


class ImportedCache:
    """A cache that a build imports (`sources.CacheSource`).

    A record without inputs has its digest as its key; others have the key that this machine would give them.
    """

    def __init__(self, config: CacheConfig, layers: Mapping[str, CachedLayer], loader: LayerLoader) -> None:
        """``layers``: those of the configuration by the digests of their blobs (InvalidArgument: one is missing)."""
        self._config, self._layers = config, layers
        usable = [depth <= MAX_DEPTH for depth in depths(config)]
        for layer in config.layers:
            if layer.blob not in layers:
                raise InvalidArgument(f"layer {layer.blob} of an imported cache is not in its manifest")
        self._targets: dict[_Link, dict[str, None]] = {}
        self._results: dict[str, list[LazyResult]] = {}
        keys: dict[int, str] = {}
        for number in _inputs_first(config):
            record = config.records[number]
            key = keys[number] = _key(record, keys, config)
            for at, links in enumerate(record.inputs):
                for one in links:
                    link = _Link(keys[one.link], at, record.digest, one.selector)
                    self._targets.setdefault(link, {})[key] = None
            found = self._results.setdefault(key, [])
            found += [
                LazyResult(partial(self._chain, one.layer), _nanoseconds(one.created_at), loader)
                for one in record.layers
                if usable[one.layer]
            ]
            found += [
                LazyResult(partial(self._named, one.layers), _nanoseconds(one.created_at), loader)
                for one in record.chains
                if len(one.layers) <= MAX_DEPTH
            ]
            found.sort(key=lambda one: -one.created)

    def __len__(self) -> int:
        return len(self._results)

    def targets(self, source: str, number: int, step: str, selector: str) -> Sequence[str]:
        """The keys to which links lead from a key of input ``number``, through a step."""
        return list(self._targets.get(_Link(source, number, step, selector), ()))

    def results(self, key: str) -> Sequence[LazyResult]:
        """The results of a key, the newest first."""
        return self._results.get(key, ())

    def _chain(self, top: int) -> list[CachedLayer]:
        return [self._layers[blob] for blob in chain(self._config, top)]

    def _named(self, numbers: Sequence[int]) -> list[CachedLayer]:
        return [self._layers[self._config.layers[number].blob] for number in numbers]


def _inputs_first(config: CacheConfig) -> list[int]:
    order: TopologicalSorter[int] = TopologicalSorter()
    for number, record in enumerate(config.records):
        order.add(number, *(one.link for links in record.inputs for one in links))
    try:
        return list(order.static_order())
    except CycleError as e:
        raise InvalidArgument("the records of an imported cache depend on each other in a circle") from e


def _key(record: CacheConfigRecord, keys: Mapping[int, str], config: CacheConfig) -> str:
    if not record.inputs:
        return record.digest
    chosen = [_telling(links, keys, config) for links in record.inputs]
    return derived_key(record.digest, [[KeySource(keys[one.link], one.selector)] if one else [] for one in chosen])


def _telling(links: Sequence[RecordInput], keys: Mapping[int, str], config: CacheConfig) -> RecordInput | None:
    """The link of an input that names a key: that of its content where there is one, which has no selector."""
    contents = [one for one in links if not one.selector and not config.records[one.link].inputs]
    return min(contents or links, key=lambda one: (one.selector, keys[one.link]), default=None)


def _nanoseconds(text: str) -> int:
    """A time of Go's as ns since 1970; 0 for what is none."""
    try:
        when = datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
    except ValueError:
        return 0
    return max(int(when.timestamp()), 0) * 10**9
