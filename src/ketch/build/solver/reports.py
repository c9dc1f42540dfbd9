"""Progress of one build, as BuildKit tells it: rows of vertices, their parts and their output.

A vertex that is needed by one that begins, and has not begun itself, is told as found in the cache then: it is not
needed any more.  One that has ended well is not told again when the build, which may solve several graphs, only looks
it up once more.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec

from ketch.build.progress import SolveStatus, VertexState
from ketch.notation import times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ketch.build.llb.vertex import Vertex
    from ketch.build.progress import LogLine, VertexStatus, VertexWarning

CANCELED = "context canceled"
log = logging.getLogger(__name__)


def now() -> str:
    """The time, as progress has it."""
    return times.rfc3339(time.time_ns())


class JobReport:
    """The vertices of one build, as it has been told of them."""

    def __init__(self, listener: Callable[[SolveStatus], None]) -> None:
        self._listener: Callable[[SolveStatus], None] | None = listener
        self._states: dict[str, VertexState] = {}
        self._looked_up: set[str] = set()  # vertices that are known already

    def _tell(self, status: SolveStatus) -> None:
        """Tell the build's listener, unless it has failed: what it is told of may belong to other builds, too."""
        if self._listener is None:
            return
        try:
            self._listener(status)
        except Exception:
            log.exception("a build's progress is not told any more")
            self._listener = None

    def begin(self, vertices: Iterable[Vertex]) -> None:
        """Tell of vertices that the build consists of."""
        fresh = [_state(vertex) for vertex in vertices if vertex.digest not in self._states]
        self._states.update((state.digest, state) for state in fresh)
        if fresh:
            self._tell(SolveStatus(vertexes=fresh))

    def started(self, digest: str, moment: str, *, cached: bool = False, lookup: bool = False) -> None:
        """Tell that a vertex began, or that it is only looked up."""
        state = self._states[digest]
        if (cached or lookup) and state.completed is not None and not state.error:
            self._looked_up.add(digest)
            return
        self._looked_up.discard(digest)
        rows = self._found_cached(digest, moment)
        rows.append(self._change(digest, started=moment, completed=None, cached=cached, error=""))
        self._tell(SolveStatus(vertexes=rows))

    def ended(self, digest: str, moment: str, error: str = "", *, cached: bool = False) -> None:
        """Tell that a vertex ended."""
        if digest in self._looked_up:
            self._looked_up.discard(digest)
            if not error:
                return
        self._tell(SolveStatus(vertexes=[self._change(digest, completed=moment, cached=cached, error=error)]))

    def status(self, row: VertexStatus) -> None:
        """Tell how far a part of a vertex is."""
        if row.vertex not in self._looked_up:
            self._tell(SolveStatus(statuses=[row]))

    def output(self, lines: list[LogLine]) -> None:
        """Tell what a vertex wrote."""
        self._tell(SolveStatus(logs=lines))

    def warning(self, row: VertexWarning) -> None:
        """Tell a warning."""
        self._tell(SolveStatus(warnings=[row]))

    def close(self) -> None:
        """Tell that what still runs was cancelled."""
        moment = now()
        rows = [
            self._change(state.digest, completed=moment, error=state.error or ("" if state.cached else CANCELED))
            for state in list(self._states.values())
            if state.started is not None and state.completed is None
        ]
        if rows:
            self._tell(SolveStatus(vertexes=rows))

    def _change(self, digest: str, **fields: Any) -> VertexState:
        state = self._states[digest] = msgspec.structs.replace(self._states[digest], **fields)
        return state

    def _found_cached(self, digest: str, moment: str) -> list[VertexState]:
        """The inputs of a vertex that begins which never began, and theirs."""
        rows = []
        pending = list(self._states[digest].inputs)
        while pending:
            state = self._states.get(pending.pop())
            if state is not None and state.started is None:
                rows.append(self._change(state.digest, started=moment, completed=moment, cached=True))
                pending += state.inputs
        rows.reverse()
        return rows


def _state(vertex: Vertex) -> VertexState:
    group = vertex.metadata.progress_group
    return VertexState(
        digest=vertex.digest,
        inputs=[edge.vertex.digest for edge in vertex.inputs],
        name=vertex.name,
        progress_group={"id": group.id, "name": group.name, "weak": group.weak} if group.id else None,
    )
