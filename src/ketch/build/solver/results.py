"""Results of edges: loaded from the cache, or made and recorded there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ketch.build.cache.keys import is_random
from ketch.build.cache.schema import result_id
from ketch.build.errors import SolveError
from ketch.build.solver.explain import Difference, difference
from ketch.build.solver.flight import ended
from ketch.build.solver.job import Made
from ketch.build.solver.reports import now
from ketch.build.tree import Tree
from ketch.errors import InvalidArgument, KetchError
from ketch.storage.layers.changed_files import changed_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.cache.schema import CacheResult
    from ketch.build.cache.sources import ImportedResult
    from ketch.build.cache.writer import CacheWriter
    from ketch.build.llb.vertex import Vertex
    from ketch.build.providers import BuildSnapshots
    from ketch.build.solver.edge import EdgeNode
    from ketch.build.solver.job import Job
    from ketch.build.solver.lookup import CacheLookup
    from ketch.build.solver.work import VertexWork
    from ketch.storage.content.leases import Lease


class Results:
    """The results of all builds' edges; so many operations run at once (``parallel``)."""

    def __init__(self, writer: CacheWriter, snapshots: BuildSnapshots, parallel: int) -> None:
        self.records = writer.records
        self._writer = writer
        self._snapshots = snapshots
        self._slots = asyncio.Semaphore(parallel)
        self._running: dict[str, VertexWork] = {}  # by the key that the result will have
        self.joining: set[asyncio.Task[None]] = set()  # leases that begin to hold what others hold

    # -- from the cache ----------------------------------------------------------------------------

    def any(self, edge: EdgeNode, job: Job) -> bool:
        """Whether there is a result by one of the edge's keys that was not tried in vain."""
        return next(iter(self._known(edge)), None) is not None or next(iter(_imported(edge, job)), None) is not None

    def made_since(self, moment: int, edge: EdgeNode, lookup: CacheLookup) -> list[str]:
        """The keys of an edge under which another build has recorded a result since then (ns since 1970).

        Older ones are left alone: the inputs, which were made just now, may be others than theirs.
        """
        if edge.state.work.anew or edge.unmade:
            return []
        keys = [self.records.key(lookup.facts(edge, number).id) for number in range(len(edge.state.maps or ()))]
        return [key.id for key in keys if key is not None and any(one.created >= moment for one in key.results)]

    def _known(self, edge: EdgeNode) -> list[CacheResult]:
        found = {one.id: one for key in edge.keys for one in self.records.results_of(key) if one.id not in edge.tried}
        return sorted(found.values(), key=lambda one: -one.created)

    async def load(self, edge: EdgeNode, lookup: CacheLookup, job: Job) -> Tree | None:
        """A result out of the cache, which the job's lease holds; None: there is none that is whole.

        One whose layers are not is forgotten.
        """
        for result in self._known(edge):
            edge.tried.add(result.id)
            moment = now()
            self._use([Tree(tuple(result.layers))], job)
            if await asyncio.to_thread(self._held, job.lease, result.layers):
                self.records.use(result.id)
                self._tell_cached(edge, job, moment)
                return Tree(tuple(result.layers))
            self.records.forget([result.id])
        for key, mark, imported in _imported(edge, job):
            edge.tried.add(mark)
            moment = now()
            try:
                tree = await imported.load(edge.state.work)
            except KetchError as e:
                edge.state.work.warn(f"{edge.state.vertex.name}: the imported cache has no use: {e.message}")
                continue
            self._adopt(edge, key, tree, lookup)
            self._tell_cached(edge, job, moment)
            return tree
        return None

    def _held(self, lease: Lease, layers: Sequence[str]) -> bool:
        lease.hold(*layers)
        return all(self._snapshots.exists(layer) for layer in layers)

    def _tell_cached(self, edge: EdgeNode, job: Job, began: str) -> None:
        digest = edge.state.vertex.digest
        job.report.started(digest, began, cached=True)
        job.report.ended(digest, now(), cached=True)

    def _adopt(self, edge: EdgeNode, key: str, tree: Tree, lookup: CacheLookup) -> None:
        """Record a result of an imported cache, with the keys of all that it was made of, by which it is found."""
        pending, seen = [edge], {edge}
        while pending:
            one = pending.pop()
            for number in range(len(one.state.maps or ())):
                for known in lookup.keys_of(one, number):
                    if one is not edge or known == key:
                        self.records.link(lookup.facts(one, number, known))
            fresh = [used for used in one.inputs if used not in seen]
            seen.update(fresh)
            pending += fresh
        for number in range(len(edge.state.maps or ())):
            facts = lookup.facts(edge, number, key)
            if key == facts.step or key in lookup.keys_of(edge, number):
                self.records.add(facts, tree, description=edge.state.vertex.name, kind=kind_of(edge.state.vertex))
                break
        self._writer.begin()

    def link(self, edge: EdgeNode, lookup: CacheLookup) -> None:
        """Record that an edge that its inputs' contents led to is found by its inputs' own keys from now on."""
        for number in range(len(edge.state.maps or ())):
            for key in lookup.keys_of(edge, number):
                if self.records.key(key) is not None:
                    self.records.link(lookup.facts(edge, number, key))

    # -- made --------------------------------------------------------------------------------------

    async def make(self, edge: EdgeNode, lookup: CacheLookup, job: Job) -> tuple[Tree, tuple[str, ...]] | None:
        """An edge's result and the keys under which it is recorded: made, or taken from a build that makes it.

        None: that one gave up before (SolveError).
        """
        work = edge.state.work
        inputs = [one.result for one in edge.inputs]
        trees = [one for one in inputs if one is not None]
        if len(trees) != len(inputs) and not work.runs:
            return None
        digest = work.vertex.digest
        made = job.made.get(digest)  # with its context as it was, and made anew no more than once
        if made is None:
            made = job.made[digest] = await work.run(lambda: self._run(edge, lookup, trees, job))
        self._use(made.outputs, job)
        if not 0 <= edge.output < len(made.outputs):
            vertex = edge.state.vertex
            absent = InvalidArgument(f"there is no output {edge.output} of `{vertex.name}`: it has {len(made.outputs)}")
            raise SolveError(vertex.digest, vertex.name, absent)
        return made.outputs[edge.output], made.keys.get(edge.output, ())

    async def _run(self, edge: EdgeNode, lookup: CacheLookup, inputs: Sequence[Tree], job: Job) -> Made:
        state = edge.state
        once = state.maps and all(is_random(one.digest) for one in state.maps)  # never found, so not worth a word
        why = await asyncio.to_thread(difference, edge, self.records) if job.explain and not once else None
        outputs = await self._outputs(edge, lookup, inputs)
        if why is not None:
            await self._explain(edge, why, outputs, job)
        keys = {
            one.output: self._recorded(one, lookup, outputs[one.output])
            for one in state.edges.values()
            if 0 <= one.output < len(outputs)
        }
        self._writer.begin()
        return Made(outputs, keys)

    async def _outputs(self, edge: EdgeNode, lookup: CacheLookup, inputs: Sequence[Tree]) -> Sequence[Tree]:
        """The outputs of an operation, or of one of another vertex that will have the same key.

        Builds of equal contexts have equal keys, and vertices of their own: a context is named by its session.
        """
        work = edge.state.work
        key = lookup.facts(edge, 0).id if edge.state.maps and not work.anew else ""
        twin = self._running.get(key)
        if twin is not None and twin is not work and twin.runs:
            return await work.told(self._of_twin(twin, work))
        if key and not is_random(key):
            self._running[key] = work
        try:
            async with self._slots:
                outputs = await work.told(work.operation().run(work, inputs))
        finally:
            if self._running.get(key) is work:
                del self._running[key]
        below = {layer for tree in outputs for layer in tree.layers} - work.lease.names
        if below:
            await asyncio.to_thread(work.lease.hold, *below)
        return outputs

    async def _of_twin(self, twin: VertexWork, work: VertexWork) -> Sequence[Tree]:
        """The outputs of a vertex that runs already, whose layers this one's lease holds as well."""
        twin.mirror(work)
        joining = asyncio.create_task(asyncio.to_thread(twin.lease.join, work.lease))
        self.joining.add(joining)
        joining.add_done_callback(self.joining.discard)
        try:
            made = await twin.run(_impossible)  # as one who waits: it goes on when its own build ends
        except SolveError as e:
            raise e.cause from e
        finally:
            await ended([joining])
            twin.unmirror(work)
            twin.lease.leave(work.lease)
        return made.outputs

    async def _explain(self, edge: EdgeNode, why: Difference, outputs: Sequence[Tree], job: Job) -> None:
        """Tell a build why a vertex ran, with the files that are others than in an older result."""

        def files() -> list[str]:
            old, new = why.compared, outputs[edge.output] if 0 <= edge.output < len(outputs) else Tree()
            if old is None or not old.layers or not new.layers or not self._snapshots.exists(old.layers[-1]):
                return []
            return changed_files(self._snapshots.directory(old.layers[-1]), self._snapshots.directory(new.layers[-1]))

        try:
            found = await asyncio.to_thread(files)
        except (KetchError, OSError) as e:  # a layer was removed meanwhile
            found = [f"the files cannot be compared: {e}"]
        job.explanations.append(why.explained(edge, found))

    def _use(self, outputs: Sequence[Tree], job: Job) -> None:
        """Keep results from being pruned as long as the build is under way."""
        for tree in outputs:
            self.records.hold(result_id(tree.layers))
            job.used.append(result_id(tree.layers))

    def _recorded(self, edge: EdgeNode, lookup: CacheLookup, tree: Tree) -> tuple[str, ...]:
        vertex, keys = edge.state.vertex, []
        for number in range(len(edge.state.maps or ())):
            facts = lookup.facts(edge, number)
            self.records.add(facts, tree, description=vertex.name, kind=kind_of(vertex))
            keys.append(facts.id)
        return tuple(dict.fromkeys(keys))


async def _impossible() -> Made:
    raise AssertionError("it runs already")


def _imported(edge: EdgeNode, job: Job) -> list[tuple[str, object, ImportedResult]]:
    """Results of imported caches that were not tried: by which key, by which mark in ``tried``."""
    found: list[tuple[str, object, ImportedResult]] = []
    for key in edge.keys:
        for number, cache in enumerate(job.imports):
            for place, result in enumerate(cache.results(key)):
                mark = (key, number, place)
                if mark not in edge.tried:
                    found.append((key, mark, result))
    return found


def kind_of(vertex: Vertex) -> str:
    """The kind of a vertex's record, in BuildKit's words."""
    identifier = vertex.op.source.identifier
    if identifier.startswith("local://"):
        return "source.local"
    if identifier.startswith("git://"):
        return "source.git.checkout"
    return "regular"
