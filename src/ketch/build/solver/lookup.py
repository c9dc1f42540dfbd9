"""Look-up of edges in the cache: by the keys of their inputs and by what is known of their inputs' contents."""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import TYPE_CHECKING

from ketch.build.cache.keys import KeySource, content_key, derived_key, root_key
from ketch.build.cache.records import KeyFacts
from ketch.build.llb import ops_pb2 as pb
from ketch.build.operation import InputKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.cache.records import CacheRecords
    from ketch.build.cache.sources import CacheSource
    from ketch.build.solver.edge import EdgeNode, VertexNode


class Outlook(Enum):
    """Outcomes of a look-up."""

    FOUND = 1
    NOTHING = 2
    MORE_KEYS = 3  # of inputs that have no key yet
    MORE_CONTENTS = 4  # of inputs that no key leads on from, or of all


class CacheLookup:
    """The look-ups of one build: in the records, and in the caches that it imports."""

    def __init__(self, records: CacheRecords, imports: Sequence[CacheSource]) -> None:
        self._caches: Sequence[CacheRecords | CacheSource] = (records, *imports)

    def by_names(self, edge: EdgeNode) -> tuple[str, ...]:
        """The keys of an edge by what is known at once: those of its inputs, and contents that are known."""
        maps = edge.state.maps or ()
        if not edge.inputs:
            return tuple(dict.fromkeys(root_key(one.digest, edge.output) for one in maps))
        return tuple(dict.fromkeys(key for number in range(len(maps)) for key in self.keys_of(edge, number)))

    def outlook(self, edge: EdgeNode, number: int) -> tuple[Outlook, Sequence[int]]:
        """The outcome of the look-up by one map, and the inputs of which more must be known.

        What costs least is tried first: no content is computed where a key is missing that only a key can give.
        """
        candidates = [self._candidates(edge, number, i) for i in range(len(edge.inputs))]
        missing = [i for i, found in enumerate(candidates) if not found]
        for i in missing:
            if edge.inputs[i].keyed and (not _by_contents(edge, number, i) or _contents_known(edge, number, i)):
                return Outlook.NOTHING, ()
        if unkeyed := [i for i in missing if not edge.inputs[i].keyed]:
            return Outlook.MORE_KEYS, unkeyed
        if missing:
            return Outlook.MORE_CONTENTS, missing
        if _common(candidates):
            return Outlook.FOUND, ()
        open_inputs = range(len(edge.inputs))
        rest = [i for i in open_inputs if _by_contents(edge, number, i) and not _contents_known(edge, number, i)]
        return (Outlook.MORE_CONTENTS, rest) if rest else (Outlook.NOTHING, ())

    def _candidates(self, edge: EdgeNode, number: int, i: int) -> dict[str, None]:
        step = root_key((edge.state.maps or ())[number].digest, edge.output)
        return self._targets(step, i, sources(edge, number, i))

    def _targets(self, step: str, i: int, known: Sequence[KeySource]) -> dict[str, None]:
        found: dict[str, None] = {}
        for source in known:
            for cache in self._caches:
                found.update(dict.fromkeys(cache.targets(source.key, i, step, source.selector)))
        return found

    def keys_of(self, edge: EdgeNode, number: int) -> list[str]:
        """The keys of an edge that one of its maps gives."""
        return list(_common([self._candidates(edge, number, i) for i in range(len(edge.inputs))]))

    def facts(self, edge: EdgeNode, number: int, known: str = "") -> KeyFacts:
        """A key of an edge by one of its maps: one that it has already (``known``), else the one to record it under."""
        step = root_key((edge.state.maps or ())[number].digest, edge.output)
        inputs = [sources(edge, number, i, recorded=True) for i in range(len(edge.inputs))]
        if not known and inputs:
            found = [self._targets(step, i, one) for i, one in enumerate(inputs)]
            known = next(iter(_common(found)), "") or derived_key(step, inputs)
        operation, data = definition(edge.state)
        return KeyFacts(
            id=known or step,
            step=step,
            inputs=inputs,
            name=edge.state.vertex.name,
            operation=operation,
            definition=data,
        )


def input_key(edge: EdgeNode, number: int, i: int) -> InputKey:
    """The part of a map that is about one input."""
    inputs = (edge.state.maps or ())[number].inputs
    return inputs[i] if i < len(inputs) else InputKey()


def sources(edge: EdgeNode, number: int, i: int, *, recorded: bool = False) -> list[KeySource]:
    """The keys of an input that are known, that of its content last; with those under which it was ``recorded``."""
    selector = input_key(edge, number, i).selector
    one = edge.inputs[i]
    keys = dict.fromkeys((*one.keys, *one.recorded)) if recorded else one.keys
    found = [KeySource(key, selector) for key in keys]
    if content := edge.state.contents.get((number, i)):
        found.append(KeySource(content_key(content)))
    return found


def definition(node: VertexNode) -> tuple[str, bytes]:
    """A digest of what an operation does, whatever its inputs are, and the bytes that it is of."""
    if node.definition is None:
        op = pb.Op()
        op.CopyFrom(node.vertex.op)
        del op.inputs[:]
        data = op.SerializeToString(deterministic=True)
        node.definition = "sha256:" + hashlib.sha256(data).hexdigest(), data
    return node.definition


def _by_contents(edge: EdgeNode, number: int, i: int) -> bool:
    return input_key(edge, number, i).contents is not None


def _contents_known(edge: EdgeNode, number: int, i: int) -> bool:
    return edge.state.contents.get((number, i)) is not None


def _common(candidates: Sequence[dict[str, None]]) -> dict[str, None]:
    if not candidates:
        return {}
    first, *others = candidates
    return {key: None for key in first if all(key in other for other in others)}
