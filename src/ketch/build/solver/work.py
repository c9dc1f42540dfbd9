"""A vertex at work for all builds that need it: its operation, asked and run once, and what it tells."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from ketch.build.errors import SolveError
from ketch.build.progress import LogLine, VertexStatus, VertexWarning
from ketch.build.solver.flight import Errand, Flight
from ketch.build.solver.reports import CANCELED, now
from ketch.storage.content.leases import Lease

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from typing import Any

    from ketch.build.llb.vertex import Vertex
    from ketch.build.operation import CacheMap, Contents, Operation
    from ketch.build.providers import BuildSession
    from ketch.build.solver.job import Job, Made
    from ketch.build.solver.reports import JobReport
    from ketch.build.tree import Tree

_T = TypeVar("_T")
_LOG_KEPT = 256 << 10  # bytes of output, for builds that come later
_MOST_STATUSES = 10_000  # parts of a vertex (layers, files), likewise


class JointLease(Lease):
    """The leases of all builds that need a vertex, as one."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._joint = threading.Lock()
        self._leases: list[Lease] = []

    def hold(self, *names: str) -> None:
        """Hold content in each of the leases."""
        with self._joint:
            self.names.update(names)
            for lease in self._leases:
                lease.hold(*names)

    def parts(self) -> Sequence[Lease]:
        """The builds' leases."""
        with self._joint:
            return tuple(self._leases)

    def join(self, lease: Lease) -> None:
        """Add a build's lease, which holds what the others hold already; blocking where there is anything."""
        with self._joint:
            self._leases.append(lease)
            if self.names:
                lease.hold(*self.names)

    def leave(self, lease: Lease) -> None:
        """Take a build's lease out."""
        with self._joint:
            if lease in self._leases:
                self._leases.remove(lease)


class VertexWork:
    """One vertex, as long as a build needs it (``Work`` of its operation, ``VertexLog`` of what it tells)."""

    __slots__ = (
        "_began",
        "_contents",
        "_digest",
        "_ended",
        "_kept",
        "_lease",
        "_lines",
        "_make",
        "_maps",
        "_members",
        "_mirrors",
        "_operation",
        "_pin",
        "_run",
        "_statuses",
        "anew",
        "maps",
        "vertex",
    )

    def __init__(self, vertex: Vertex, operation: Callable[[Vertex], Operation], *, anew: bool = False) -> None:
        """``anew``: it is not to be taken from the cache, or stands on what is not."""
        self.vertex = vertex
        self.anew = anew
        self._digest = vertex.digest
        self._make = operation
        self._operation: Operation | None = None
        self._lease = JointLease()
        self._members: dict[Job, int] = {}  # with the number of their solves
        self._mirrors: Sequence[VertexWork] = ()
        self._lines: deque[LogLine] | None = None  # of most there are none, and an empty one is large
        self._kept = 0
        self._statuses: dict[str, VertexStatus] = {}
        self._began: str | None = None
        self._ended: tuple[str, str] | None = None
        self._pin = ""
        self.maps: Sequence[CacheMap] | None = None
        self._maps: Errand[Sequence[CacheMap]] = Errand()
        self._contents: dict[tuple[int, int, Tree], Flight[str]] = {}
        self._run: Flight[Made] = Flight()

    # -- as Work and VertexLog ---------------------------------------------------------------------

    @property
    def lease(self) -> JointLease:
        """Holds what is made, in all builds that need it."""
        return self._lease

    @property
    def sessions(self) -> Sequence[BuildSession]:
        """The clients of the builds that need it."""
        mirrored = [session for one in self._mirrors for session in one.sessions]
        return [*(job.session for job in self._members), *mirrored]

    @property
    def log(self) -> VertexWork:
        """The sink of its output and its progress."""
        return self

    def write(self, stream: int, data: bytes) -> None:
        """Pass on output of a command."""
        line = LogLine(vertex=self._digest, stream=stream, data=data, timestamp=now())
        if self._lines is None:
            self._lines = deque()
        self._lines.append(line)
        self._kept += len(data)
        while self._kept > _LOG_KEPT and len(self._lines) > 1:
            self._kept -= len(self._lines.popleft().data)
        for job in self._members:
            job.report.output([line])
        for mirror in self._mirrors:
            mirror.write(stream, data)

    def status(self, name: str, current: int, total: int = 0, *, done: bool = False) -> None:
        """Tell how far a part is."""
        moment, before = now(), self._statuses.get(name)
        row = VertexStatus(
            id=name,
            vertex=self._digest,
            current=current,
            total=total,
            timestamp=moment,
            started=before.started if before is not None else moment,
            completed=moment if done else None,
        )
        if before is not None or len(self._statuses) < _MOST_STATUSES:
            self._statuses[name] = row
        for job in self._members:
            job.report.status(row)
        for mirror in self._mirrors:
            mirror.status(name, current, total, done=done)

    def warn(self, text: str) -> None:
        """Tell a warning."""
        row = VertexWarning(vertex=self._digest, level=1, short=text.encode())
        for job in self._members:
            job.report.warning(row)
        for mirror in self._mirrors:
            mirror.warn(text)

    def pin(self, found: str) -> None:
        """Tell all builds what a source stands for."""
        self._pin = found
        for job in self._members:
            job.pins[self._digest] = found

    # -- builds ------------------------------------------------------------------------------------

    def join(self, job: Job) -> bool:
        """Add a build, which is told what was told before; True: its lease is to join by `hold_for`, in a thread."""
        self._members[job] = self._members.get(job, 0) + 1
        if self._members[job] > 1:
            return False
        self._tell_again(job.report)
        if self._pin:
            job.pins[self._digest] = self._pin
        if self._lease.names:
            return True
        self._lease.join(job.lease)
        return False

    def hold_for(self, job: Job) -> None:
        """Let a build's lease hold what was made before it came; blocking."""
        self._lease.join(job.lease)

    def leave(self, job: Job) -> bool:
        """Take a build out, which waits for nothing here any more; True: it was the last one."""
        self._members[job] -= 1
        if not self._members[job]:
            del self._members[job]
            self._lease.leave(job.lease)
        return not self._members

    def _tell_again(self, report: JobReport) -> None:
        if self._began is None:
            return
        report.started(self._digest, self._began)
        for row in self._statuses.values():
            report.status(row)
        if self._lines:
            report.output(list(self._lines))
        if self._ended is not None:
            report.ended(self._digest, *self._ended)

    # -- the operation -----------------------------------------------------------------------------

    def operation(self) -> Operation:
        """The operation (KetchError: there is none of this kind)."""
        if self._operation is None:
            self._operation = self._make(self.vertex)
        return self._operation

    async def ask(self) -> Sequence[CacheMap]:
        """The cache maps (SolveError)."""
        return await self._maps.wait(self._ask)

    async def _ask(self) -> Sequence[CacheMap]:
        try:
            if self.vertex.inputs:
                self.maps = await self._known(self._cache_maps())
            else:  # BuildKit tells of the look-ups of sources, which may take a while
                self.maps = await self.told(self._cache_maps(), lookup=True)
        except SolveError as e:
            e.message = f"failed to load cache key: {e.message}"
            raise
        return self.maps

    async def _cache_maps(self) -> Sequence[CacheMap]:
        return await self.operation().cache_maps(self)

    async def contents(self, number: tuple[int, int], compute: Contents, tree: Tree) -> str:
        """The digest of an input's content, by the numbers of map and input (SolveError)."""
        flight = self._contents.setdefault((*number, tree), Flight())
        return await flight.wait(lambda: self._digested(compute, tree))

    async def _digested(self, compute: Contents, tree: Tree) -> str:
        try:
            return await self._known(compute(tree))
        except SolveError as e:
            ref = tree.layers[-1] if tree.layers else "scratch"
            e.message = f"failed to calculate checksum of ref {ref}: {e.message}"
            self._tell_started()
            self._tell_ended(e.message)
            e.message = f"failed to compute cache key: {e.message}"
            raise

    @property
    def runs(self) -> bool:
        """Whether it runs for some build, or has run."""
        return self._run.begun

    async def run(self, work: Callable[[], Coroutine[Any, Any, Made]]) -> Made:
        """The results: by ``work``, unless it runs already or has run (SolveError)."""
        return await self._known(self._run.wait(lambda: self._known(work())))

    def mirror(self, other: VertexWork) -> None:
        """Tell another vertex, which waits for this one's result, what was told here and what will be."""
        for line in self._lines or ():
            other.write(line.stream, line.data)
        self._mirrors = (*self._mirrors, other)

    def unmirror(self, other: VertexWork) -> None:
        """End that."""
        self._mirrors = tuple(one for one in self._mirrors if one is not other)

    async def _known(self, work: Awaitable[_T]) -> _T:
        """A result whose errors name the vertex."""
        try:
            return await work
        except SolveError:
            raise
        except Exception as e:
            raise SolveError(self._digest, self.vertex.name, e) from e

    async def told(self, work: Awaitable[_T], *, lookup: bool = False) -> _T:
        """A result of work that is told as the vertex's own: when it began, when and how it ended (SolveError)."""
        self._tell_started(lookup=lookup)
        error = ""
        try:
            return await self._known(work)
        except asyncio.CancelledError:
            error = CANCELED
            raise
        except SolveError as e:
            error = str(e)
            raise
        finally:
            self._tell_ended(error)

    def _tell_started(self, *, lookup: bool = False) -> None:
        self._began, self._ended = now(), None
        for job in self._members:
            job.report.started(self._digest, self._began, lookup=lookup)

    def _tell_ended(self, error: str = "") -> None:
        self._ended = now(), error
        for job in self._members:
            job.report.ended(self._digest, *self._ended)
        if error == CANCELED:  # whoever comes now begins anew
            self._began, self._ended, self._kept = None, None, 0
            self._lines = None
            self._statuses.clear()
