"""The engine: everything that the API can ask for, behind one object."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ketch.engine import relocation, restore
from ketch.engine.containers.lifecycle import Lifecycle
from ketch.engine.containers.listeners import Listeners
from ketch.engine.containers.service import ContainerService
from ketch.engine.execs.health import HealthChecks
from ketch.engine.execs.service import ExecService
from ketch.engine.files.service import FileService
from ketch.engine.images import commit
from ketch.engine.images.commit import CommitService
from ketch.engine.images.manifests import ManifestService
from ketch.engine.images.pull import PullService
from ketch.engine.images.push import PushService
from ketch.engine.images.service import ImageService
from ketch.engine.networks.service import NetworkService
from ketch.engine.system import SystemService

if TYPE_CHECKING:
    from ketch.engine.events.bus import EventBus
    from ketch.engine.images.registries import Registries
    from ketch.engine.parts import Context
    from ketch.engine.volumes.store import VolumeStore

log = logging.getLogger(__name__)


class Engine:
    """Services over one ``Context``; ``start`` before the first request, ``close`` after the last."""

    containers: ContainerService
    execs: ExecService
    files: FileService
    images: ImageService
    registries: Registries
    manifests: ManifestService
    pulls: PullService
    pushes: PushService
    system: SystemService
    commits: CommitService
    events: EventBus
    volumes: VolumeStore
    networks: NetworkService

    def __init__(self, context: Context, engine_id: str) -> None:
        self.context = context
        self._life = Lifecycle(context)
        self.containers = ContainerService(context, self._life)
        self.execs = ExecService(context)
        health = HealthChecks(context, self.execs, self._life.unhealthy_actions())
        self._life.listeners = Listeners(self.containers.remove_ended, self.execs.ended, self.execs.lost, health)
        self.files = FileService(context)
        self.commits = CommitService(context, self.containers)
        self.images = ImageService(context, context.images)
        self.registries = context.registries
        self.manifests = ManifestService(context)
        self.pulls = PullService(context, context.images)
        self.pushes = PushService(context, context.images)
        self.system = SystemService(context, engine_id)
        self.events = context.events
        self.volumes = context.volumes
        self.networks = NetworkService(context, context.network, context.sandboxes)

    async def start(self) -> None:
        """Take over what a former daemon left running, remove what it left half-done."""
        await asyncio.to_thread(relocation.settle, self.context)
        await self.networks.ensure_predefined()
        await restore.restore(self.context, self._life, self.execs)
        await commit.resume(self.context, self.containers)

    async def close(self) -> None:
        """Stop serving; containers go on running under their monitors."""
        self._life.stopping = True
        ctx = self.context
        ctx.tasks.cancel_watchers()
        for container in ctx.store.all():
            live = ctx.live.of(container.id)
            for _, stream in live.early:
                stream.close()
            live.early.clear()
            live.release_held()
            if live.monitor is not None:
                live.monitor.disconnect()
        await ctx.network_thread.run(ctx.sandboxes.close)
        await ctx.launcher.close()
