"""Reconnection of containers that kept running: DNS is served again, their volumes are marked as in use."""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.volumes import container_volumes
from ketch.errors import KetchError

if TYPE_CHECKING:
    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.model.records import Container
    from ketch.engine.monitors.monitor_client import MonitorClient
    from ketch.engine.networks.sandbox import Sandboxes
    from ketch.engine.volumes.store import VolumeStore

log = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


class Reconnection(Struct, frozen=True, eq=False):
    """Connects running containers to this daemon."""

    live: LiveContainers
    tasks: BackgroundTasks
    sandboxes: Sandboxes
    volumes: VolumeStore

    async def run(self, container: Container) -> None:
        """Reconnect one container; failures are logged."""
        await self._answer_names(container, self.live.of(container.id).monitor)
        await self._attach_volumes(container)

    async def _answer_names(self, container: Container, monitor: MonitorClient | None) -> None:
        """Serve its DNS again, with the sockets that its monitor kept; without those only register its names."""
        if not await self._answered(container, monitor):
            self.tasks.watch(self._answer_names_later(container, monitor))

    async def _answered(self, container: Container, monitor: MonitorClient | None) -> bool:
        """`_answer_names`; False when it must be retried, for want of descriptors."""
        kept = monitor.kept if monitor is not None else None
        try:
            fresh = await self.sandboxes.adopt(container, kept)
        except (KetchError, OSError) as e:
            log.warning("answer names for container %s: %s", container.id[:12], e)
            if any(
                isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE) for error in (e, e.__cause__)
            ):
                return False
            fresh = []
        if monitor is not None:
            monitor.kept = []
            if fresh and not kept:
                monitor.keep(fresh)
        return True

    async def _answer_names_later(self, container: Container, monitor: MonitorClient | None) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            if self.live.of(container.id).monitor is not monitor or not container.state.running:
                return  # its next take-over, or its end, has seen to it
            if await self._answered(container, monitor):
                return

    async def _attach_volumes(self, container: Container) -> None:
        """Register the use of its volumes; mounts stay as they are."""
        names = container_volumes.names(container)
        if not names:
            return
        try:
            await asyncio.to_thread(self.volumes.attach, names, container.id)
        except (KetchError, OSError) as e:
            log.warning("volumes of container %s: %s", container.id[:12], e)
