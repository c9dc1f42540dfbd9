"""Differences: the changes that make one tree of another."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch import trees
from ketch.build.cache.maps import diff_map
from ketch.build.ops.stacking import Restacking
from ketch.build.ops.threads import in_thread
from ketch.build.tree import EMPTY, Tree
from ketch.storage.snapshots.tree_diff import write_upper
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ketch.build.llb.vertex import Vertex
    from ketch.build.operation import CacheMap, Work
    from ketch.build.providers import BuildSnapshots
    from ketch.storage.content.leases import Lease

_NOTHING = -1


class DiffOperation:
    """The changes from a lower tree to an upper one, as layers that can be merged upon others."""

    def __init__(self, vertex: Vertex, snapshots: BuildSnapshots) -> None:
        self._op, self._snapshots = vertex.op, snapshots

    async def cache_maps(self, work: Work) -> Sequence[CacheMap]:
        """One map, by the inputs' own keys."""
        del work
        return [diff_map(self._op)]

    async def run(self, work: Work, inputs: Sequence[Tree]) -> Sequence[Tree]:
        """Make the one output (KetchError)."""
        lower, upper = (
            EMPTY if index == _NOTHING else inputs[index]
            for index in (self._op.diff.lower.input, self._op.diff.upper.input)
        )
        lease = work.lease
        return [await in_thread(lambda check: self._difference(lower, upper, lease, check))]

    def _difference(self, lower: Tree, upper: Tree, lease: Lease, check: Callable[[], None]) -> Tree:
        count = len(lower.layers)
        if not count:
            return upper
        if upper.layers[:count] == lower.layers:
            restacking = Restacking(self._snapshots, lease, check)
            own = range(count, len(upper.layers))
            return Tree(tuple(restacking.movable(upper.layers[n], upper.layers[:n]) for n in own))
        with Undo() as undo:
            draft = self._snapshots.begin(lease)
            undo.callback(draft.abort)
            with (
                self._snapshots.opened(upper) as new,
                self._snapshots.opened(lower) as old,
                _open(draft.directory) as fd,
            ):
                write_upper(new, old, fd, check)
            return Tree((draft.commit(),))


@contextmanager
def _open(path: str) -> Iterator[int]:
    fd = os.open(path, trees.DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
