"""The engine: the façade that the API calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.restore import relocation

if TYPE_CHECKING:
    from ketch.engine.build.remains import BuildRemains
    from ketch.engine.build.service import BuildService
    from ketch.engine.containers.lifecycle import Lifecycle
    from ketch.engine.containers.service import ContainerService
    from ketch.engine.events.bus import EventBus
    from ketch.engine.execs.service import ExecService
    from ketch.engine.files.service import FileService
    from ketch.engine.images.commit import CommitService
    from ketch.engine.images.manifests import ManifestService
    from ketch.engine.images.pull import PullService
    from ketch.engine.images.push import PushService
    from ketch.engine.images.registries import Registries
    from ketch.engine.images.service import ImageService
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.networks.sandbox import Sandboxes
    from ketch.engine.networks.service import NetworkService
    from ketch.engine.oneshot.service import OneShots
    from ketch.engine.parts import Parts
    from ketch.engine.prune import PruneService
    from ketch.engine.restore.service import Restore
    from ketch.engine.sessions import ProgramSessions
    from ketch.engine.stats.counters import Counters
    from ketch.engine.system import SystemService
    from ketch.engine.volumes.backup import VolumeBackups
    from ketch.engine.volumes.container_volumes import ContainerVolumes
    from ketch.engine.volumes.store import VolumeStore


class Engine(Struct, frozen=True, kw_only=True, eq=False):
    """The services of one daemon; ``start`` before the first request, ``close`` after the last."""

    containers: ContainerService
    execs: ExecService
    oneshots: OneShots
    files: FileService
    images: ImageService
    registries: Registries
    manifests: ManifestService
    pulls: PullService
    pushes: PushService
    builds: BuildService
    system: SystemService
    commits: CommitService
    events: EventBus
    volumes: VolumeStore
    backups: VolumeBackups
    networks: NetworkService
    prunes: PruneService
    sessions: ProgramSessions
    counters: Counters
    # What follows is for `start` and `close`, and not for the API.
    parts: Parts
    live: LiveContainers
    container_volumes: ContainerVolumes
    sandboxes: Sandboxes
    life: Lifecycle
    build_remains: BuildRemains
    restore: Restore

    async def start(self) -> None:
        """Take over what a former daemon left running, remove what it left half-done."""
        parts = self.parts
        await asyncio.to_thread(relocation.relocate, parts.paths.data_root, parts.store, self.container_volumes)
        await self.networks.ensure_predefined()
        await self.build_remains.clear()
        await asyncio.to_thread(self.builds.resume)
        await self.restore.run()
        await self.commits.resume()
        await self.sessions.clear()

    async def flush(self) -> None:
        """Wait until everything that was acknowledged is durable."""
        await self.parts.store.flush_durable()

    def interrupt(self) -> None:
        """Break off builds, copies out of images and removals of volumes: the daemon is about to end."""
        self.parts.interruption.begin()
        self.parts.volumes.interrupt()
        self.builds.interrupt()

    async def stop_containers(self, least_s: int) -> None:
        """Stop all containers within so many seconds, or their own times: they end with this daemon."""
        self.life.end_restarts()
        await self.life.stopping.stop_all(least_s)

    async def close(self) -> None:
        """Stop serving; containers go on running under their monitors."""
        parts = self.parts
        await self.builds.close()
        await self.oneshots.close()
        self.life.end_restarts()
        parts.tasks.cancel_watchers()
        for container in parts.store.all():
            live = self.live.of(container.id)
            live.close_early()
            live.release_held()
            if live.monitor is not None:
                live.monitor.disconnect()
        await parts.network_thread.run(self.sandboxes.close)
        await parts.launcher.close()
