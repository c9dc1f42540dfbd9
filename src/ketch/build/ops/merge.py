"""Merges: the changes of several trees, made one after the other; no file is copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.cache.maps import merge_map
from ketch.build.ops.stacking import Restacking
from ketch.build.ops.threads import in_thread
from ketch.build.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.build.llb.vertex import Vertex
    from ketch.build.operation import CacheMap, Work
    from ketch.build.providers import BuildSnapshots
    from ketch.storage.content.leases import Lease


class MergeOperation:
    """A merge of trees: their layers, one upon the other."""

    def __init__(self, vertex: Vertex, snapshots: BuildSnapshots) -> None:
        self._op, self._snapshots = vertex.op, snapshots

    async def cache_maps(self, work: Work) -> Sequence[CacheMap]:
        """One map, by the inputs' own keys."""
        del work
        return [merge_map(self._op)]

    async def run(self, work: Work, inputs: Sequence[Tree]) -> Sequence[Tree]:
        """Make the one output (KetchError)."""
        chosen = [inputs[one.input] for one in self._op.merge.inputs]
        lease = work.lease
        return [await in_thread(lambda check: self._merged(chosen, lease, check))]

    def _merged(self, inputs: Sequence[Tree], lease: Lease, check: Callable[[], None]) -> Tree:
        restacking = Restacking(self._snapshots, lease, check)
        layers: list[str] = []
        for tree in inputs:
            for index, layer in enumerate(tree.layers):
                below = tree.layers[:index]
                layers.append(layer if below == tuple(layers) else restacking.movable(layer, below))
        return Tree(last_of_each(layers))


def last_of_each(layers: Sequence[str]) -> tuple[str, ...]:
    """Layers without those that come again above: what the upper one changes is not changed by the lower one."""
    return tuple(reversed(dict.fromkeys(reversed(layers))))
