"""One build's way through its graph: what is looked up, loaded or made, in which order.

Each edge goes through three stages, and only as far as somebody wants it to (`edge.Wanted`): the keys that its
definition gives, the keys that the contents of its inputs give, its result.  Nothing recurses, and no task waits for
another one in a chain: what happens to an edge queues the edges that use it (`_queue`), and `_advance` looks at each
again.  Results, contents and cache maps come from tasks, each for one edge.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ketch.build.llb.vertex import Edge, in_order
from ketch.build.solver.edge import EdgeNode, VertexNode, Wanted
from ketch.build.solver.flight import ended
from ketch.build.solver.lookup import CacheLookup, Outlook, input_key
from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from typing import Any

    from ketch.build.llb.vertex import Vertex
    from ketch.build.solver.job import Job
    from ketch.build.solver.results import Results
    from ketch.build.solver.work import VertexWork
    from ketch.build.tree import Tree

_ASKERS = 64  # vertices that are asked for their cache maps at once


class GraphEvaluation:
    """The evaluation of one edge for one build.  In the event loop."""

    def __init__(self, target: Edge, job: Job, results: Results, work_of: Callable[[Vertex, bool], VertexWork]) -> None:
        """``work_of`` joins the work on a vertex; True: it stands on what is made anew whatever the cache has."""
        self._job = job
        self._began = results.records.now()
        self._results = results
        self._lookup = CacheLookup(results.records, job.imports)
        self._vertices: dict[str, VertexNode] = {}
        self._queued: deque[EdgeNode] = deque()
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._done: asyncio.Future[Tree] = asyncio.get_running_loop().create_future()
        vertices = list(in_order([target.vertex]))
        job.report.begin(vertices)
        anew: set[str] = set()
        for vertex in vertices:
            if vertex.metadata.ignore_cache or any(edge.vertex.digest in anew for edge in vertex.inputs):
                anew.add(vertex.digest)
            self._vertices[vertex.digest] = VertexNode(vertex, work_of(vertex, vertex.digest in anew))
        self._target = self._edge(target)
        for vertex in reversed(vertices):
            for edge in self._vertices[vertex.digest].edges.values():
                edge.inputs = [self._edge(one) for one in vertex.inputs]
                edge.unnamed = edge.unmade = len(edge.inputs)
                for used in edge.inputs:
                    used.users.append(edge)
        self._target.wanted = Wanted.RESULT

    def _edge(self, edge: Edge) -> EdgeNode:
        state = self._vertices[edge.vertex.digest]
        found = state.edges.get(edge.output)
        if found is None:
            found = state.edges[edge.output] = EdgeNode(state, edge.output)
        return found

    async def run(self) -> tuple[Tree, Sequence[str]]:
        """The result and its cache keys (SolveError)."""
        waiting = iter(list(self._vertices.values()))
        for _ in range(min(_ASKERS, len(self._vertices))):
            self._spawn(self._ask(waiting))
        return await self._done, self._target.recorded or self._target.keys

    async def close(self) -> None:
        """Stop what is under way, and wait until that has ended."""
        self._closing = True
        if not self._done.cancel() and not self._done.cancelled():
            self._done.exception()  # retrieved: whoever waited may be gone
        for task in self._tasks:
            task.cancel()
        await ended(list(self._tasks))

    # -- tasks -------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            if not self._closing and not self._done.done():
                self._done.set_exception(KetchError("context canceled"))
            return
        error = task.exception()
        if error is None:
            self._advance_queued()
        elif not self._done.done():
            self._done.set_exception(error)

    async def _ask(self, waiting: Iterator[VertexNode]) -> None:
        """Ask vertices for their cache maps, one after the other."""
        for state in waiting:
            state.maps = state.work.maps if state.work.maps is not None else await state.work.ask()
            for edge in state.edges.values():
                self._queue(edge)
            self._advance_queued()

    async def _compute(self, edge: EdgeNode, number: int, i: int, tree: Tree) -> None:
        compute = input_key(edge, number, i).contents
        if compute is not None:
            edge.state.contents[number, i] = await edge.state.work.contents((number, i), compute, tree)
        for one in edge.state.edges.values():
            self._queue(one)

    async def _load(self, edge: EdgeNode) -> None:
        loaded = await self._results.load(edge, self._lookup, self._job)
        edge.busy = False
        if loaded is not None:
            self._made(edge, loaded)
        self._queue(edge)

    async def _make(self, edge: EdgeNode) -> None:
        made = await self._results.make(edge, self._lookup, self._job)
        edge.busy = False
        if made is not None:
            tree, edge.recorded = made
            self._made(edge, tree)
        self._queue(edge)

    def _made(self, edge: EdgeNode, tree: Tree) -> None:
        edge.result = tree
        for user in edge.users:
            user.unmade -= 1
            self._queue(user)

    # -- stages ------------------------------------------------------------------------------------

    def _queue(self, edge: EdgeNode) -> None:
        if not edge.queued:
            edge.queued = True
            self._queued.append(edge)

    def _queue_users(self, edge: EdgeNode) -> None:
        for user in edge.users:
            self._queue(user)

    def _advance_queued(self) -> None:
        while self._queued and not self._done.done():
            edge = self._queued.popleft()
            edge.queued = False
            try:
                self._advance(edge)
            except Exception as e:  # a fault of an operation's maps, or here: the build fails, not the daemon
                if not self._done.done():
                    self._done.set_exception(e)

    def _advance(self, edge: EdgeNode) -> None:
        if not edge.named and not self._name(edge):
            return
        if not edge.keyed and edge.wanted >= Wanted.KEYS:
            self._find_keys(edge)
        if edge.keyed and edge.wanted is Wanted.RESULT and edge.result is None and not edge.busy:
            self._obtain(edge)
        if edge is self._target and edge.result is not None and not self._done.done():
            self._done.set_result(edge.result)

    def _name(self, edge: EdgeNode) -> bool:
        """Look an edge up by its definition, when all that it is made of has been."""
        if edge.state.maps is None or edge.unnamed:
            return False
        if not edge.state.ignores_cache:
            edge.keys = self._lookup.by_names(edge)
        edge.named = True
        edge.keyed = bool(edge.keys or edge.state.ignores_cache or not edge.inputs)
        for user in edge.users:
            user.unnamed -= 1
            if not user.unnamed:
                self._queue(user)
        return True

    def _find_keys(self, edge: EdgeNode) -> None:
        """Look an edge up by contents of its inputs, or ask for those that are needed for that."""
        nothing = True
        for number in range(len(edge.state.maps or ())):
            outlook, inputs = self._lookup.outlook(edge, number)
            if outlook is Outlook.FOUND:
                self._found(edge)
                return
            if outlook is Outlook.MORE_KEYS:
                for i in inputs:
                    self._want(edge.inputs[i], Wanted.KEYS)
                self._begin_uncached(edge, number)
            elif outlook is Outlook.MORE_CONTENTS:
                for i in inputs:
                    self._want_contents(edge, number, i)
            nothing = nothing and outlook is Outlook.NOTHING
        if nothing:
            edge.keyed = True
            self._queue_users(edge)

    def _begin_uncached(self, edge: EdgeNode, number: int) -> None:
        """Make inputs that no cache has, while the keys of others are found out: they are needed in any case."""
        for i, one in enumerate(edge.inputs):
            if one.keyed and not one.keys:
                self._want_contents(edge, number, i)

    def _found(self, edge: EdgeNode) -> None:
        edge.keys = self._lookup.by_names(edge)
        edge.keyed = True
        self._results.link(edge, self._lookup)
        self._queue_users(edge)

    def _want(self, edge: EdgeNode, wanted: Wanted) -> None:
        if wanted > edge.wanted:
            edge.wanted = wanted
            self._queue(edge)

    def _want_contents(self, edge: EdgeNode, number: int, i: int) -> bool:
        """Whether an input's content is known, or of no account; it is computed as soon as the input is there."""
        known = edge.state.contents
        if input_key(edge, number, i).contents is None or known.get((number, i)) is not None:
            return True
        tree = edge.inputs[i].result
        if tree is None:
            self._want(edge.inputs[i], Wanted.RESULT)
        elif (number, i) not in known:
            known[number, i] = None
            self._spawn(self._compute(edge, number, i, tree))
        return False

    def _obtain(self, edge: EdgeNode) -> None:
        """Load an edge's result, or make it as soon as its inputs are there."""
        ignores = edge.state.ignores_cache
        if not ignores and self._results.any(edge, self._job):
            edge.busy = True
            self._spawn(self._load(edge))
            return
        if not edge.state.work.runs and not self._inputs_there(edge):
            return
        if not ignores and edge.inputs:
            # Contents that were of no account before may lead to it, and other builds may have made it meanwhile.
            keys = (*self._lookup.by_names(edge), *self._results.made_since(self._began, edge, self._lookup))
            if not set(keys) <= set(edge.keys):
                edge.keys = tuple(dict.fromkeys((*edge.keys, *keys)))
                self._queue(edge)
                return
        edge.busy = True
        self._spawn(self._make(edge))

    def _inputs_there(self, edge: EdgeNode) -> bool:
        """Whether an edge's inputs are there, and what is to be known of their contents."""
        if not edge.asked:
            edge.asked = True
            for one in edge.inputs:
                self._want(one, Wanted.RESULT)
        if edge.unmade:
            return False
        maps, inputs = range(len(edge.state.maps or ())), range(len(edge.inputs))
        known = [self._want_contents(edge, number, i) for number in maps for i in inputs]  # all begin at once
        return all(known)
