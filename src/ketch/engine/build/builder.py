"""The builder of one daemon: solver, operations and export, joined with images, layers and containers.

It is made when the first build begins: what it imports no start of the daemon has to wait for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from ketch.build.solver.job import Job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from contextlib import AsyncExitStack

    from ketch.build.cache.sources import CacheSource
    from ketch.build.llb.vertex import Edge
    from ketch.build.progress import SolveStatus
    from ketch.build.providers import BuildSession, BuildSnapshots
    from ketch.build.solver.job import Explanation
    from ketch.build.solver.solver import Solver
    from ketch.build.sources.sources import Sources
    from ketch.build.tree import Tree
    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.build.caches.exchange import CacheExchange
    from ketch.engine.build.exports.exporter import Exporter
    from ketch.engine.build.images import EngineBuildImages
    from ketch.engine.images.pull import PullService
    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease


class SolveExtras(Struct, kw_only=True, eq=False):
    """More that goes into a solution and comes out of it.

    ``imports``: caches to look up in; ``explanations`` gets why steps were not cached, ``keys`` the keys of the result,
    ``pins`` what sources stood for, by their digests.
    """

    imports: Sequence[CacheSource] = ()
    explanations: list[Explanation] | None = None
    keys: list[str] = field(default_factory=list)
    pins: dict[str, str] = field(default_factory=dict)


class Builder(Struct, frozen=True, kw_only=True, eq=False):
    """The parts of all builds; ``root``: where contexts that came as a tar are unpacked.

    ``denied``: the entitlements that no client can give.
    """

    solver: Solver
    snapshots: BuildSnapshots
    sources: Sources
    images: EngineBuildImages
    pulls: PullService
    store: ImageStore
    root: str
    exporter: Exporter
    exchange: CacheExchange
    tasks: BackgroundTasks
    denied: Collection[str] = ()
    frontends: dict[str, Callable[[Any, Any], Awaitable[Any]]] = field(default_factory=dict)
    """Front ends by name (`frontends.bridge.Frontend`); others may add theirs."""

    async def lease(self, stack: AsyncExitStack) -> Lease:
        """A lease that lasts as long as the stack."""
        found = self.snapshots.lease()
        lease = await asyncio.to_thread(found.__enter__)
        stack.push_async_callback(asyncio.to_thread, found.__exit__, None, None, None)
        return lease

    async def solve(
        self,
        edge: Edge,
        session: BuildSession,
        lease: Lease,
        tell: Callable[[SolveStatus], None],
        extras: SolveExtras | None = None,
    ) -> Tree:
        """The tree of an edge, which the lease holds (KetchError)."""
        extras = extras or SolveExtras()
        explain = extras.explanations is not None
        job = Job(session, lease, tell, explain=explain, imports=extras.imports)
        try:
            return await self.solver.solve(edge, job)
        finally:
            if extras.explanations is not None:
                extras.explanations += job.explanations
            extras.keys += job.keys.get(edge, ())
            extras.pins |= job.pins
