"""Results of front ends: graphs that are solved when somebody needs their files, and what goes with them."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from msgspec import Struct, field

from ketch.build.dockerfile.convert.scans import Scans
from ketch.build.llb.definition import define
from ketch.build.tree import EMPTY, Tree

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ketch.build.llb import ops_pb2 as pb
    from ketch.build.llb.vertex import Edge

CONFIG = "containerimage.config"
PLATFORMS = "refs.platforms"
EPOCH = "source.date.epoch"
SINGLE = ""


class Ref:
    """A result: an output of a graph, or an empty directory (``edge`` is None); ``scans``: trees to be listed with it.

    It is solved once, when somebody asks for its tree; its build holds that from then on.
    """

    def __init__(
        self,
        edge: Edge | None,
        solve: Callable[[Edge], Awaitable[Tree]],
        source: Callable[[Edge], pb.Source] | None = None,
    ) -> None:
        """``source`` makes the lines of a file that the graph comes from."""
        self.id, self.edge = secrets.token_hex(12), edge
        self._solve, self._source = solve, source
        self._task: asyncio.Task[Tree] | None = None
        self.scans = Scans()

    async def tree(self) -> Tree:
        """The files (SolveError)."""
        if self.edge is None:
            return EMPTY
        if self._task is None:
            self._task = asyncio.ensure_future(self._solve(self.edge))
        return await asyncio.shield(self._task)

    def source(self) -> pb.Source | None:
        """The lines that its vertices come from, with their files."""
        return self._source(self.edge) if self._source is not None and self.edge is not None else None

    def definition(self) -> pb.Definition | None:
        """The graph, as others are told it; None: an empty directory."""
        if self.edge is None:
            return None
        return define(self.edge, self.source())

    async def close(self) -> None:
        """Break off what runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.exception()


class FrontendAttestation(Struct, frozen=True, kw_only=True):
    """A statement about a result, which a front end has made: ``kind`` 0 in-toto, 1 a directory of such.

    ``path``: in the files of ``ref``; ``subjects`` are (kind, name, digests).
    """

    kind: int
    ref: Ref | None
    path: str
    predicate: str = ""
    metadata: dict[str, bytes] = field(default_factory=dict)
    subjects: Sequence[tuple[int, str, Sequence[str]]] = ()


class FrontendResult(Struct, kw_only=True, eq=False):
    """The result of a front end: one for each platform by its name, or a single one (`SINGLE`).

    ``metadata`` is BuildKit's: the configurations of images, the platforms, answers of calls.
    """

    refs: dict[str, Ref] = field(default_factory=dict)
    metadata: dict[str, bytes] = field(default_factory=dict)
    attestations: dict[str, list[FrontendAttestation]] = field(default_factory=dict)
