"""Construction of the builder out of the engine's parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.build.cache.contents import ContentDigests
from ketch.build.ops.registry import OperationRegistry
from ketch.build.solver.solver import Solver
from ketch.build.sources.sources import Sources
from ketch.engine.build.builder import Builder
from ketch.engine.build.caches.exchange import CacheExchange
from ketch.engine.build.exports.exporter import Exporter
from ketch.engine.build.frontends import dockerfile
from ketch.engine.build.images import EngineBuildImages
from ketch.engine.build.layouts import EngineBuildLayouts

if TYPE_CHECKING:
    from collections.abc import Collection

    from ketch.build.cache.records import CacheRecords
    from ketch.build.providers import BuildSnapshots, Executor
    from ketch.build.sources.kept.stores import SourceStores
    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.events.bus import EventBus
    from ketch.engine.images.pull import PullService
    from ketch.engine.images.push import PushService
    from ketch.engine.images.registries import Registries
    from ketch.images.store import ImageStore
    from ketch.storage.contexts.copies import ContextCopies


class BuilderParts(Struct, frozen=True, kw_only=True, eq=False):
    """All that a builder is made of."""

    root: str
    store: ImageStore
    snapshots: BuildSnapshots
    executor: Executor
    records: CacheRecords
    contexts: ContextCopies
    sources: SourceStores
    registries: Registries
    pulls: PullService
    pushes: PushService
    events: EventBus
    tasks: BackgroundTasks
    max_parallelism: int
    denied: Collection[str]


def make(p: BuilderParts) -> Builder:
    """The builder; in the event loop."""
    contents = ContentDigests(p.snapshots)
    images = EngineBuildImages(p.store, p.registries, layers=p.pulls.layers)
    sources = Sources(
        snapshots=p.snapshots,
        images=images,
        layouts=EngineBuildLayouts(p.store),
        contexts=p.contexts,
        kept=p.sources,
        from_client=contents.from_client,
    )
    operations = OperationRegistry(p.snapshots, p.executor, contents, sources.operation)
    return Builder(
        solver=Solver(operations, p.records, p.snapshots, max_parallelism=p.max_parallelism),
        snapshots=p.snapshots,
        sources=sources,
        images=images,
        pulls=p.pulls,
        store=p.store,
        root=p.root,
        exporter=Exporter(p.store, p.snapshots, p.pushes, p.events),
        exchange=CacheExchange(p.store, p.registries.remotes, p.pulls.layers, p.records),
        tasks=p.tasks,
        denied=p.denied,
        frontends={dockerfile.NAME: dockerfile.dockerfile},
    )
