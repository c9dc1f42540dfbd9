"""Restore at the daemon's start: running containers, interrupted operations, restart policies.

For each container that was up: its monitor is alive (take charge again), or it left an exit record
(handle the exit now), or both are gone (it died with the machine: exit code 137).  Then whatever belongs to
no container is removed: directories, cgroups, interfaces and port mappings.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.containers import restart_policy
from ketch.engine.model.records import Status
from ketch.errors import KetchError, Unavailable
from ketch.failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.engine.aio.serial_thread import SerialThread
    from ketch.engine.containers.lifecycle import Lifecycle
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.live.takeover import Takeover
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.monitors.monitor_client import MonitorClient
    from ketch.engine.restore.reconnection import Reconnection
    from ketch.engine.restore.state import StateRestore
    from ketch.engine.restore.sweep import Sweep
    from ketch.engine.volumes.store import VolumeStore
    from ketch.network.manager import NetworkManager

log = logging.getLogger(__name__)
_AT_ONCE = 64  # monitors that are asked at the same time: each has to wake up first
_PATIENCE_S, _LEAST_PATIENCE_S = 1.5, 0.1  # for all of them, and for each


class Restore(Struct, frozen=True, eq=False):
    """The restore of an earlier daemon's state."""

    store: ContainerStore
    live: LiveContainers
    volumes: VolumeStore
    network: NetworkManager
    network_thread: SerialThread
    takeover: Takeover
    states: StateRestore
    reconnection: Reconnection
    sweep: Sweep
    life: Lifecycle

    async def run(self) -> None:
        """Reconnect, record, clean up; a container that fails is logged and does not stop the others."""
        everything = self.store.all()
        turn = asyncio.Semaphore(_AT_ONCE)
        deadline = time.monotonic() + _PATIENCE_S

        async def take_in(container: Container, monitor: MonitorClient | None) -> None:
            await self.states.restore(container, monitor)
            if monitor is not None:
                await self.reconnection.run(container)

        async def restore_one(container: Container) -> None:
            async with turn:
                try:
                    patience_s = max(deadline - time.monotonic(), _LEAST_PATIENCE_S)
                    try:
                        await self.takeover.attempt(container, patience_s, self.states.restore)
                    except (Unavailable, OSError) as e:
                        await self.takeover.pursue(container, e, take_in)
                except (KetchError, OSError):
                    log.exception("restore container %s", container.id[:12])
                failpoint("daemon.container-restored")

        await asyncio.gather(*map(restore_one, everything))
        try:
            await asyncio.to_thread(self.sweep.run)
        except OSError as e:
            if e.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            log.warning("look for what is left of former containers: %s; the next start does it", e.strerror)
        failpoint("daemon.swept")
        up = [c.id for c in self.store.all() if c.state.running]
        await self.network_thread.run(self.network.reconcile, [*up, *self.store.unreadable])
        failpoint("daemon.reconciled")
        await asyncio.gather(*(self.reconnection.run(c) for c in everything if c.state.running))
        await asyncio.to_thread(self.volumes.unmount_unused)
        await asyncio.to_thread(self.volumes.finish_pending)
        self.life.begin_restarts()
        await self._start_by_policy()

    async def _start_by_policy(self) -> None:
        """Start the stopped containers whose restart policies ask for it."""
        for container in _in_order(c for c in self.store.all() if restart_policy.wanted_at_boot(c)):
            if container.state.running:
                continue  # it ended while nobody was there, and its policy has brought it back already
            if container.state.status is Status.RESTARTING:
                if self.live.of(container.id).restart_task is None:  # its count and what is left of its pause are kept
                    self.life.restart_later(container)
                continue
            try:
                await self.life.start(container)
            except (KetchError, OSError) as e:
                log.warning("restart container %s: %s", container.id[:12], e)


def _in_order(containers_: Iterable[Container]) -> list[Container]:
    """The containers, oldest first, those in another container's namespace last."""

    def key(container: Container) -> tuple[bool, int]:
        return bool(container.host.joined), container.created

    return sorted(containers_, key=key)
