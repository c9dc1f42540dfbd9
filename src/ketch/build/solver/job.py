"""A build, as the solver sees it: who wants it, what holds its layers, who is told of its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ketch.build.solver.reports import JobReport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ketch.build.cache.sources import CacheSource
    from ketch.build.llb.vertex import Edge
    from ketch.build.progress import SolveStatus
    from ketch.build.providers import BuildSession
    from ketch.build.tree import Tree
    from ketch.storage.content.leases import Lease


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The reason why a vertex was not found in the cache: a sentence, and what differs from the nearest record."""

    vertex: str
    name: str
    reason: str
    details: Sequence[str] = ()


class Made(NamedTuple):
    """Results of a vertex that ran: the trees of its outputs, and the keys under which they were recorded."""

    outputs: Sequence[Tree]
    keys: Mapping[int, tuple[str, ...]]


class Job:
    """One build; what it needs is held by ``lease``, which ends after the last solve of it.

    ``listener`` is called in the event loop.  After a solve, ``keys`` has the cache keys of each solved edge, ``pins``
    what sources stood for, by their digests, and with ``explain``, ``explanations`` tells of each vertex that ran.
    """

    def __init__(
        self,
        session: BuildSession,
        lease: Lease,
        listener: Callable[[SolveStatus], None],
        *,
        explain: bool = False,
        imports: Sequence[CacheSource] = (),
    ) -> None:
        self.session = session
        self.lease = lease
        self.report = JobReport(listener)
        self.explain = explain
        self.imports = imports
        self.keys: dict[Edge, Sequence[str]] = {}
        self.pins: dict[str, str] = {}
        self.explanations: list[Explanation] = []
        self.solves = 0  # under way
        self.made: dict[str, Made] = {}  # by the digests of vertices, for the next solves
        self.used: list[str] = []  # results out of the cache, as long as it is under way
