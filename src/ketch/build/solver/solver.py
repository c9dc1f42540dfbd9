"""The solver: gives each build the tree that its graph describes, and makes nothing twice.

One for all builds of the daemon, in its event loop.  A vertex that several builds need at once is one (`work`); each
build goes its own way through its graph (`evaluation`).
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from ketch.build.cache.writer import CacheWriter
from ketch.build.solver.evaluation import GraphEvaluation
from ketch.build.solver.flight import ended
from ketch.build.solver.results import Results
from ketch.build.solver.work import VertexWork
from ketch.build.tree import EMPTY, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.build.cache.records import CacheRecords
    from ketch.build.llb.vertex import Edge, Vertex
    from ketch.build.operation import Operation
    from ketch.build.providers import BuildSnapshots
    from ketch.build.solver.job import Job

    Operations = Callable[[Vertex], Operation]
_LEAST_PARALLELISM = 4


class Solver:
    """All builds of one daemon."""

    def __init__(
        self,
        operations: Operations,
        records: CacheRecords,
        snapshots: BuildSnapshots,
        *,
        max_parallelism: int = 0,
    ) -> None:
        """``max_parallelism`` operations run at once; 0: as many as there are processors, at least four."""
        self._operations = operations
        self.writer = CacheWriter(records, snapshots)
        parallel = max_parallelism or max(_LEAST_PARALLELISM, os.cpu_count() or 1)
        self._results = Results(self.writer, snapshots, parallel)
        self._active: dict[tuple[str, bool], VertexWork] = {}

    async def solve(self, edge: Edge | None, job: Job) -> Tree:
        """The tree of an edge, which the job's lease holds (SolveError); None: an empty one.

        Cancelled, it stops what no other build needs, and returns when that has ended.
        """
        if edge is None:
            return EMPTY
        joined: list[tuple[tuple[str, bool], VertexWork]] = []
        late: list[VertexWork] = []

        def work_of(vertex: Vertex, anew: bool) -> VertexWork:
            key, work = self._work(vertex, anew)
            if work.join(job):
                late.append(work)
            joined.append((key, work))
            return work

        job.solves += 1
        evaluation: GraphEvaluation | None = None
        try:
            evaluation = GraphEvaluation(edge, job, self._results, work_of)
            if late:
                await self._hold(late, job)
            tree, job.keys[edge] = await evaluation.run()
            return tree
        finally:
            await self._finish(evaluation, joined, job, edge)

    def _work(self, vertex: Vertex, anew: bool) -> tuple[tuple[str, bool], VertexWork]:
        """The work on a vertex: of one that is made anew, only that of other builds which make it anew."""
        fresh = (vertex.digest, True)
        key = fresh if anew or fresh in self._active else (vertex.digest, False)
        work = self._active.get(key)
        if work is None:
            work = self._active[key] = VertexWork(vertex, self._operations, anew=key[1])
        return key, work

    async def _hold(self, late: Sequence[VertexWork], job: Job) -> None:
        """Hold, for a build that comes late, what was made before; the others stay until that is done."""

        def hold() -> None:
            for work in late:
                work.hold_for(job)

        task = asyncio.create_task(asyncio.to_thread(hold))
        self._results.joining.add(task)
        task.add_done_callback(self._results.joining.discard)
        await asyncio.shield(task)

    async def _finish(
        self,
        evaluation: GraphEvaluation | None,
        joined: Sequence[tuple[tuple[str, bool], VertexWork]],
        job: Job,
        target: Edge,
    ) -> None:
        """End a build's part in everything, however often this is cancelled."""

        async def finish() -> None:
            if evaluation is not None:
                await evaluation.close()
            while self._results.joining:
                await asyncio.wait(set(self._results.joining))
            for key, work in joined:
                if work.leave(job):
                    self._active.pop(key, None)
            job.solves -= 1
            if not job.solves:
                job.report.close()
            await self.writer.settle(succeeded=target in job.keys)
            if not job.solves:
                self.writer.records.release(job.used)
                job.used.clear()

        await ended([asyncio.create_task(finish())])

    async def settled(self) -> None:
        """Return when all that was made is recorded durably, or cannot be; a build waits for it before it is told."""
        await self.writer.flush()

    async def close(self) -> None:
        """Write what is left to write; no build may be under way."""
        await self.writer.flush()
        self.writer.close()
