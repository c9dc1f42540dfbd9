"""A build's surroundings in memory: layers that are texts, and operations whose effect is a calculation.

Leases, records and database are the real ones.  A layer's text is made of what the operation is and of the texts of its
inputs, so that two trees are equal if they were made in the same way.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import threading
from typing import TYPE_CHECKING, Any

from ketch.build.cache.records import CacheRecords
from ketch.build.cache.schema import SCHEMA
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.vertex import Edge, Vertex, in_order, vertex
from ketch.build.operation import CacheMap, InputKey
from ketch.build.solver.job import Job
from ketch.build.solver.solver import Solver
from ketch.build.tree import EMPTY, Tree
from ketch.errors import DataLoss, NotFound
from ketch.storage.content.leases import Lease, Leases
from ketch.storage.database.db import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from ketch.build.operation import Operation, Work
    from ketch.build.progress import SolveStatus


class MemorySnapshots:
    """Layers as texts, with real leases; what neither a lease nor ``needed`` names is removed."""

    def __init__(self, directory: Path) -> None:
        self.texts: dict[str, str] = {}
        self.needed: Callable[[], Collection[str]] = set
        self.synced: list[set[str]] = []
        self.looked_at: list[str] = []
        self.fail_sync = False
        self._directory = directory
        self._lock = threading.RLock()
        self._leases = Leases(self._lock, str(directory / "leases"))
        self._numbers = itertools.count()

    def lease(self) -> AbstractContextManager[Lease]:
        return self._leases.take(self._collect)

    def _collect(self, names: set[str]) -> None:
        with self._lock:
            for name in names - self._leases.held() - set(self.needed()):
                self.texts.pop(name, None)

    def held(self) -> set[str]:
        return self._leases.held()

    def make(self, lease: Lease, text: str) -> str:
        layer = f"built-{next(self._numbers)}"
        lease.hold(layer)
        self.texts[layer] = text
        return layer

    def begin(self, lease: Lease) -> Any:
        raise NotImplementedError

    def directory(self, layer: str) -> str:
        """A directory with a file for each word of the text."""
        directory = self._directory / "files" / layer
        if not directory.exists():
            directory.mkdir(parents=True)
            for name in self.texts[layer].split():
                (directory / name.partition("=")[0]).write_text(name)
        return str(directory)

    def opened(self, tree: Tree) -> AbstractContextManager[int]:
        raise NotImplementedError

    def exists(self, layer: str) -> bool:
        self.looked_at.append(layer)
        return layer in self.texts

    def size(self, layer: str) -> int:
        return len(self.texts[layer])

    def sync(self, layers: Collection[str]) -> None:
        if self.fail_sync:
            raise DataLoss("bring layers to the disk: test")
        self.synced.append(set(layers))

    def text(self, tree: Tree) -> str:
        return "|".join(self.texts[layer] for layer in tree.layers)


class Behaviour:
    """The way an operation of a test behaves: by the first argument of its command."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}  # of sources: what is there now
        self.contents: set[str] = set()  # operations that go by the contents of their inputs
        self.ignored: set[str] = set()  # operations whose result their inputs do not change (their effect is `same`)
        self.same: set[str] = set()  # operations whose result does not say who made it
        self.maps: dict[str, list[str]] = {}  # operations with several maps
        self.random: set[str] = set()  # sources that have another name each time
        self.gates: dict[str, asyncio.Event] = {}  # operations that wait
        self.map_gates: dict[str, asyncio.Event] = {}
        self.failing: dict[str, Exception] = {}
        self.outputs: dict[str, int] = {}
        self.stacked: set[str] = set()  # operations whose result is a layer upon their first input
        self.ran: list[str] = []
        self.computed: list[str] = []
        self.stopped: list[str] = []
        self.running = 0
        self.most_running = 0
        self.numbers = itertools.count()


class MemoryOperation:
    """An operation of a test."""

    def __init__(self, made_of: Vertex, world: World) -> None:
        self._vertex = made_of
        self._world = world
        self._name = made_of.name

    async def cache_maps(self, work: Work) -> Sequence[CacheMap]:
        behaviour, name = self._world.behaviour, self._name
        if name in behaviour.map_gates:
            await behaviour.map_gates[name].wait()
        if name in behaviour.random:
            return [CacheMap(f"random:{hashlib.sha256(b'%d' % next(behaviour.numbers)).hexdigest()}")]
        inputs = [InputKey(contents=self._digest if name in behaviour.contents else None) for _ in self._vertex.inputs]
        variables = "".join(self._vertex.op.exec.meta.env)
        names = behaviour.maps.get(name) or [name + variables + ("" if inputs else ":" + behaviour.texts.get(name, ""))]
        return [CacheMap("sha256:" + hashlib.sha256(one.encode()).hexdigest(), inputs) for one in names]

    async def _digest(self, tree: Tree) -> str:
        self._world.behaviour.computed.append(self._name)
        return "sha256:" + hashlib.sha256(self._world.snapshots.text(tree).encode()).hexdigest()

    async def run(self, work: Work, inputs: Sequence[Tree]) -> Sequence[Tree]:
        world, name = self._world, self._name
        behaviour = world.behaviour
        behaviour.ran.append(name)
        behaviour.running += 1
        behaviour.most_running = max(behaviour.most_running, behaviour.running)
        try:
            work.log.write(1, f"begin {name}\n".encode())
            if name in behaviour.gates:
                await behaviour.gates[name].wait()
            else:
                await asyncio.sleep(0)
            if name in behaviour.failing:
                raise behaviour.failing[name]
            work.log.write(1, f"end {name}\n".encode())
            text = effect(world, name, [world.snapshots.text(one) for one in inputs])
            count = behaviour.outputs.get(name, 1)
            below = inputs[0].layers if name in behaviour.stacked else ()
            made = [world.snapshots.make(work.lease, f"{text}#{i}" if i else text) for i in range(count)]
            return [Tree((*below, layer)) for layer in made]
        except asyncio.CancelledError:
            behaviour.stopped.append(name)
            raise
        finally:
            behaviour.running -= 1


def effect(world: World, name: str, inputs: Sequence[str]) -> str:
    if name in world.behaviour.same:
        return "the same"
    if name in world.behaviour.ignored:
        return f"{name}()"
    return f"{name}({','.join(inputs)}{world.behaviour.texts.get(name, '')})"


class MemorySession:
    """A client that has nothing."""

    def __init__(self, number: int) -> None:
        self.id = f"session-{number}"

    async def directory(self, name: str) -> Any:
        raise NotFound(name)

    async def layout(self, name: str) -> Any:
        raise NotFound(name)

    async def secret(self, name: str) -> bytes | None:
        return None

    async def ssh_agent(self, name: str) -> str | None:
        return None

    def keeper(self, host: str) -> None:
        return None

    async def credentials(self, host: str) -> tuple[str, str] | None:
        return None

    def uploaded(self, host: str, path: str) -> Any:
        raise NotFound(path)


class World:
    """A solver with all that it needs; `again` is the same after the daemon's restart."""

    def __init__(self, directory: Path, *, parallel: int = 0) -> None:
        self._directory = directory
        self._parallel = parallel
        self.behaviour = Behaviour()
        self.snapshots = MemorySnapshots(directory)
        self.statuses: list[SolveStatus] = []
        self.in_images: set[str] = set()
        self._sessions = itertools.count()
        self._open()

    def _open(self) -> None:
        self.db = Database(str(self._directory / "ketch.db"), (SCHEMA,))
        self.records = CacheRecords(self.db)
        self.snapshots.needed = self.records.layers
        self.solver = Solver(self._operation, self.records, self.snapshots, max_parallelism=self._parallel)

    def _operation(self, made_of: Vertex) -> Operation:
        return MemoryOperation(made_of, self)

    async def restart(self) -> None:
        """Lose what was in memory."""
        await self.close()
        self._open()

    async def close(self) -> None:
        await self.solver.close()
        self.db.close()

    def job(self, lease: Lease, **options: Any) -> Job:
        return Job(MemorySession(next(self._sessions)), lease, self.statuses.append, **options)

    async def build(self, edge: Edge, **options: Any) -> str:
        """The text of what is built."""
        with self.snapshots.lease() as lease:
            tree = await self.solver.solve(edge, self.job(lease, **options))
            assert set(tree.layers) <= lease.names
            text = self.snapshots.text(tree)
        await self.solver.settled()
        return text

    def ran(self) -> list[str]:
        """What ran since the last call."""
        found, self.behaviour.ran = self.behaviour.ran, []
        return found


def step(
    name: str,
    *inputs: Edge,
    ignore_cache: bool = False,
    output: int = 0,
    env: Sequence[str] = (),
    files: bool = False,
    **metadata: Any,
) -> Edge:
    """An operation of a test, which is a command or (``files``) one on files."""
    op = pb.Op()
    if files:
        op.file.actions.add().copy.src = name
    else:
        op.exec.meta.args.append(name)
        op.exec.meta.env.extend(env)
    described = pb.OpMetadata(ignore_cache=ignore_cache, description={"llb.customname": name}, **metadata)
    return Edge(vertex(op, inputs, described), output)


def evaluated(world: World, edge: Edge) -> str:
    """What an edge is, by calculation alone."""
    known: dict[str, str] = {}
    for one in in_order([edge.vertex]):
        inputs = [known[used.vertex.digest] + (f"#{used.output}" if used.output else "") for used in one.inputs]
        known[one.digest] = effect(world, one.name, inputs)
    return known[edge.vertex.digest] + (f"#{edge.output}" if edge.output else "")


async def until(true: Callable[[], object]) -> None:
    for _ in range(100_000):
        if true():
            return
        await asyncio.sleep(0.0001)
    raise AssertionError("it never became true")


__all__ = ["EMPTY", "World", "evaluated", "step", "until"]
