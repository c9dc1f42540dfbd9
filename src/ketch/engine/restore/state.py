"""State of one container at the daemon's start: its record is brought up to date."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.aio import snapshot_work
from ketch.engine.model.records import Status
from ketch.engine.monitors.run_directory import Exit, read_exit
from ketch.errors import KetchError
from ketch.storage.database.mark import boot_id
from ketch.storage.snapshots import quota

if TYPE_CHECKING:
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.containers.lifecycle import Lifecycle
    from ketch.engine.containers.orphans import Orphans
    from ketch.engine.containers.removal import Removal
    from ketch.engine.containers.update import Updates
    from ketch.engine.execs.service import ExecService
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.monitors.monitor_client import MonitorClient
    from ketch.engine.paths import ContainerPaths
    from ketch.images.store import ImageStore
    from ketch.storage.snapshots.overlay import Snapshots

log = logging.getLogger(__name__)


class StateRestore(Struct, frozen=True, eq=False):
    """Takes over running containers, and handles the exits of others."""

    store: ContainerStore
    live: LiveContainers
    paths: ContainerPaths
    cgroups: ContainerCgroups
    images: ImageStore
    snapshots: Snapshots
    orphans: Orphans
    removal: Removal
    updates: Updates
    life: Lifecycle
    execs: ExecService

    async def restore(self, container: Container, monitor: MonitorClient | None) -> None:
        """Take over a running container, or handle its exit."""
        state = container.state
        if state.status is Status.REMOVING:
            self.store.remove(container)
            return
        if monitor is not None:
            self._take_over(container, monitor)
            self.life.adopt(container, monitor)
            self.execs.recover(container, monitor.execs)
            await self._apply_limits(container)
            return
        end = read_exit(self.paths.run_dir(container.id))
        unheard = end is not None and end.at_ns > max(state.finished_at, container.created)
        await self._find_directory(container)
        lost = state.starting not in ("", boot_id())  # it began before the machine did, and may have been acknowledged
        if state.starting:
            state.starting = ""
            self.store.save_best_effort(container, durable=False)
        if not state.running and not unheard and not lost:
            if container.host.auto_remove and state.status is Status.EXITED:
                await self.removal.remove_ended(container)
            return
        live = self.live.of(container.id)
        async with live.lock:
            await asyncio.to_thread(self.orphans.clear, container)
            await self.life.on_exit(container, live, end or Exit(137, time.time_ns(), False))

    async def _find_directory(self, container: Container) -> None:
        """Make a missing directory anew: one made just before a power cut may be lost although the row exists."""
        if not self.snapshots.exists(container.id):
            log.warning("container %s (%s): its directory was lost; it begins anew", container.name, container.id[:12])
            chain_ids = self.images.resolve(container.image_id).chain_ids
            size, mapped = quota.parse(container.host.storage_opt), container.user_namespace is not None
            await snapshot_work.run_to_end(
                self.snapshots, self.snapshots.prepare, container.id, chain_ids, size, mapped
            )

    def _take_over(self, container: Container, monitor: MonitorClient) -> None:
        """Update the record of a running container (its cgroup tells whether it is frozen)."""
        state = container.state
        known = (state.status, state.pid, state.started_at)
        unwritten = not state.running
        if unwritten:  # the daemon died between the program's start and the record of it
            state.exit_code, state.error, state.finished_at, state.oom_killed = 0, "", 0, False
            container.own_hosts = ""
        state.status = Status.PAUSED if self.cgroups.of(container).is_frozen() else Status.RUNNING
        state.pid = monitor.pid
        state.started_at, state.starting = monitor.started_at or state.started_at, ""
        if known != (state.status, state.pid, state.started_at):  # else a write for each container would be for nothing
            self.store.save_best_effort(container, durable=unwritten)

    async def _apply_limits(self, container: Container) -> None:
        """Finish an ``update`` that a crash interrupted between the row and the cgroup."""
        async with self.live.of(container.id).lock:
            if container.limits_pending and container.state.running:
                try:
                    await self.updates.apply(container)
                except (KetchError, OSError) as e:
                    log.warning("apply the limits of container %s: %s", container.id[:12], e)
