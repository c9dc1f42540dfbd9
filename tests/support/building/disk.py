"""A builder on a disk: real layers and leases, real records, and operations that write one file.

python -m tests.support.building.disk ROOT      build a → b → c there, for tests that kill it on the way
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from typing import TYPE_CHECKING

from ketch.build.cache.records import CacheRecords
from ketch.build.cache.schema import SCHEMA
from ketch.build.operation import CacheMap, InputKey
from ketch.build.solver.job import Job
from ketch.build.solver.solver import Solver
from ketch.build.tree import Tree
from ketch.engine.build.snapshots import EngineBuildSnapshots
from ketch.images.schema import SCHEMAS
from ketch.images.store import ImageStore
from ketch.storage.database.db import Database
from ketch.storage.snapshots.overlay import OverlaySnapshots
from tests.support.building.memory import MemorySession, step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.llb.vertex import Edge, Vertex
    from ketch.build.operation import Work

CHAIN = step("c", step("b", step("a")))


class DiskWorld:
    """A solver over a data root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.db = Database(os.path.join(root, "ketch.db"), (*SCHEMAS, SCHEMA))
        self.records = CacheRecords(self.db)
        self.store = ImageStore(self.db, root, others=self.records.layers)
        self.snapshots = EngineBuildSnapshots(self.store, OverlaySnapshots(root))
        self.solver = Solver(lambda vertex: FileWriting(vertex, self), self.records, self.snapshots)
        self.ran: list[str] = []

    async def build(self, edge: Edge) -> str:
        """The text of what is built."""
        with self.snapshots.lease() as lease:
            tree = await self.solver.solve(edge, Job(MemorySession(0), lease, lambda _status: None))
            await self.solver.settled()
            return self.text(tree)

    async def close(self) -> None:
        await self.solver.close()
        self.store.close()
        self.db.close()

    def text(self, tree: Tree) -> str:
        with open(os.path.join(self.snapshots.directory(tree.layers[-1]), "text"), encoding="utf-8") as f:
            return f.read()

    def layers(self) -> set[str]:
        """What is in the directory of layers."""
        return set(os.listdir(os.path.join(self.root, "layers")))


class FileWriting:
    """An operation that writes its name, and what it was made of, to a file."""

    def __init__(self, vertex: Vertex, world: DiskWorld) -> None:
        self._name, self._world, self._inputs = vertex.name, world, len(vertex.inputs)

    async def cache_maps(self, work: Work) -> Sequence[CacheMap]:
        return [CacheMap("sha256:" + hashlib.sha256(self._name.encode()).hexdigest(), [InputKey()] * self._inputs)]

    async def run(self, work: Work, inputs: Sequence[Tree]) -> Sequence[Tree]:
        self._world.ran.append(self._name)
        below = inputs[0] if inputs else Tree()

        def write() -> str:
            draft = self._world.snapshots.begin(work.lease)
            with open(os.path.join(draft.directory, "text"), "w", encoding="utf-8") as f:
                f.write(f"{self._name}({self._world.text(below) if inputs else ''})")
            return draft.commit()

        return [Tree((*below.layers, await asyncio.to_thread(write)))]


async def main(root: str) -> None:
    world = DiskWorld(root)
    await world.build(CHAIN)
    await world.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
