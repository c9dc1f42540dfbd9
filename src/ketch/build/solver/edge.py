"""Edges of one build, as far as their look-up and their making have come."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.llb.vertex import Vertex
    from ketch.build.operation import CacheMap
    from ketch.build.solver.work import VertexWork
    from ketch.build.tree import Tree


class Wanted(IntEnum):
    """Degrees of what the edges that use an edge want of it."""

    NAMES = 0  # the keys that its definition alone gives
    KEYS = 1  # all keys that can be had without making it
    RESULT = 2


class VertexNode:
    """A vertex in one build: its edges by output, its cache maps, the content keys of its inputs."""

    __slots__ = ("contents", "definition", "edges", "ignores_cache", "maps", "vertex", "work")

    def __init__(self, vertex: Vertex, work: VertexWork) -> None:
        self.vertex = vertex
        self.work = work
        self.definition: tuple[str, bytes] | None = None  # as `lookup.definition` made it
        self.ignores_cache = vertex.metadata.ignore_cache
        self.maps: Sequence[CacheMap] | None = None
        self.edges: dict[int, EdgeNode] = {}
        self.contents: dict[tuple[int, int], str | None] = {}  # None: being computed; empty: there is none


class EdgeNode:
    """An output of a vertex in one build.

    ``named``: what its definition alone gives is known; ``keyed``: so is what its inputs' contents give.  ``keys`` are
    those by which it was found.  What was made has no say in look-ups but by its content: it can have become another;
    ``recorded`` are the keys under which it was recorded.
    """

    __slots__ = (
        "asked",
        "busy",
        "inputs",
        "keyed",
        "keys",
        "named",
        "output",
        "queued",
        "recorded",
        "result",
        "state",
        "tried",
        "unmade",
        "unnamed",
        "users",
        "wanted",
    )

    def __init__(self, state: VertexNode, output: int) -> None:
        self.state = state
        self.output = output
        self.inputs: list[EdgeNode] = []
        self.users: list[EdgeNode] = []
        self.unnamed = self.unmade = 0  # inputs that are not looked up by definition, that have no result
        self.asked = False  # its inputs' results are wanted
        self.wanted = Wanted.NAMES
        self.named = self.keyed = False
        self.keys: tuple[str, ...] = ()
        self.recorded: tuple[str, ...] = ()
        self.tried: set[object] = set()  # results that turned out to be unusable
        self.result: Tree | None = None
        self.busy = False  # its result is being loaded or made
        self.queued = False
