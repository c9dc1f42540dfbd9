"""Containers in another one's pid namespace (``--pid container:``), which end with it.

The first process of a namespace can end only when all others are reaped (pid_namespaces(7)), and those of a container
are reaped by its own monitor.  One that is stopped would hold up the end of a container that is not its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.model.records import Status
from ketch.engine.monitors import process as monitor_process
from ketch.errors import KetchError

if TYPE_CHECKING:
    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.paths import ContainerPaths

log = logging.getLogger(__name__)


class SharedPids(Struct, frozen=True, eq=False):
    """The running containers by pid namespace."""

    store: ContainerStore
    paths: ContainerPaths
    cgroups: ContainerCgroups
    live: LiveContainers
    tasks: BackgroundTasks

    def guests(self, container: Container) -> list[Container]:
        """The running containers that have joined the pid namespace of this one, or another one that is in it."""
        home = _namespace(container.state.pid)
        joined = [c for c in self.store.all() if c.state.running and c.host.pid.container is not None]
        return [c for c in joined if home and c.id != container.id and _namespace(c.state.pid) == home]

    def watch(self, container: Container) -> None:
        """Have a guest's processes reaped when its namespace ends, also while its monitor is stopped.

        Whether that container is ended or ends by itself: nobody else would have the monitor go on.
        """
        if container.host.pid.container is not None:
            self.tasks.watch(self._resume_after_end(container))

    async def thaw(self, container: Container, number: int) -> None:
        """Thaw a frozen container so that it acts on a signal (cgroup v1: even on SIGKILL).

        Guests are killed by the kernel with the container, and let go on then, too.
        """
        for member in (*(self.guests(container) if number == signal.SIGKILL else ()), container):
            async with self.live.of(member.id).freezer:  # a pause under way is over then
                if member.state.status is not Status.PAUSED:
                    continue
                cgroup = self.cgroups.of(member)
                with contextlib.suppress(FileNotFoundError):  # it has ended just now
                    await asyncio.to_thread(cgroup.freeze, False)
                if member.state.status is Status.PAUSED:
                    member.state.status = Status.RUNNING

    async def _resume_after_end(self, guest: Container) -> None:
        """Wait until a container has no processes, then continue its monitor."""
        first = guest.state.pid
        try:
            await monitor_process.ended(first, None)
            monitor = monitor_process.find(self.paths.run_dir(guest.id), guest.id, first)
            monitor_process.resume(monitor, guest.id)
        except (KetchError, OSError) as e:
            log.warning("let the monitor of container %s go on: %s", guest.id[:12], e)


def _namespace(pid: int) -> int:
    """The number of a process's pid namespace; 0 when it has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino if pid else 0
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0  # (the last is what /proc says of a process that is reaped while its path is looked up)
