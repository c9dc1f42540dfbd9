"""Orphans of killed monitors and daemons, found and ended: processes, cgroups, names in the run directory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.monitors import process as monitor_process
from ketch.engine.monitors.run_directory import written_pid
from ketch.errors import KetchError
from ketch.runtime.cgroups import common
from ketch.runtime.process import messages
from ketch.runtime.process.foreign import remains

if TYPE_CHECKING:
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.live.direct import DirectSignals
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.monitors.monitor_client import MonitorClient
    from ketch.engine.networks.sandbox import Sandboxes
    from ketch.engine.paths import ContainerPaths
    from ketch.runtime.protocol import Cgroups

log = logging.getLogger(__name__)
_UNDONE_S = 30.0


class Orphans(Struct, frozen=True, eq=False):
    """Finds and ends the orphans of killed monitors and daemons."""

    store: ContainerStore
    live: LiveContainers
    paths: ContainerPaths
    cgroups: ContainerCgroups
    direct: DirectSignals
    sandboxes: Sandboxes

    def clear(self, container: Container) -> None:
        """Remove everything that is left of a container that has ended: processes, cgroup, names; blocking.

        Processes that left their parent or their session are found all the same.  A failure is logged: the end of
        the container must be told in any case, and the next start looks again.
        """
        self._delete_from_runtime(container.id)
        try:
            cgroup = self.cgroups.of(container)
            if exists(cgroup.describe()):
                cgroup.kill()
                cgroup.remove()
            for name in (messages.PID_FILE, messages.CONTROL_SOCKET):  # a monitor that ends by itself takes them away
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.paths.run_dir(container.id), name))
        except (KetchError, OSError) as e:
            log.error("end what is left of container %s: %s", container.id[:12], e)

    async def abandon(self, container: Container, monitor: MonitorClient) -> None:
        """Abandon a start, and wait until its monitor has undone it: the next one uses the same names and cgroup."""
        silent = await monitor.abandon()
        pid = monitor.process or written_pid(self.paths.run_dir(container.id))
        if monitor_process.lives(pid, container.id):
            if silent:
                await monitor_process.end(pid, container.id, grace_s=0)
            elif not await monitor_process.ended(pid, _UNDONE_S):
                log.warning("container %s: its monitor (pid %d) takes long to undo a start", container.id[:12], pid)
        if not monitor.undone:
            await monitor_process.end_forks(container.id, but=pid)
        await asyncio.to_thread(self.clear, container)  # it was killed, perhaps

    async def clear_for_removal(self, container: Container) -> None:
        """Clear the orphans of a container that is to be removed (KetchError: a process of it lives)."""
        run_dir = self.paths.run_dir(container.id)
        if exists(self.cgroups.of(container).describe()) or remains.find(run_dir) is not None:
            await asyncio.to_thread(self.clear, container)
        if left := self.direct.alive(container):
            raise KetchError(
                f"remove container `{container.name}`: there is still {left}", hint="end it, then remove the container"
            )
        await self.sandboxes.unwire_if_wired(container)  # its end could not take them back

    def clear_stopped(self) -> None:
        """Remove the cgroups of containers that do not run, as a killed monitor leaves them; blocking."""
        for container in self.store.all():
            if not container.state.running and self.live.of(container.id).pursuit is None:
                self.clear(container)
        if foreign := self._foreign_cgroups():
            log.info("left alone in cgroup %s, as not of this data root: %s", self.cgroups.parent, ", ".join(foreign))

    def unknown(self) -> list[str]:
        """Ids of containers with a directory under one of our roots and without a row: interrupted removals.

        The directories are made before anything of the container is, so whatever has none is somebody else's.
        """
        found: dict[str, None] = {}
        for root in (os.path.join(self.paths.data_root, "containers"), os.path.join(self.paths.exec_root, "run")):
            for name in os.listdir(root) if os.path.isdir(root) else ():
                if not self.store.knows(name):
                    found[name] = None
        return list(found)

    def end(self, container_id: str) -> bool:
        """Kill and remove the cgroup of a container that has no row; blocking.

        False, with a line in the log, when something of it stays: its directory must stay then, too.
        """
        deleted = self._delete_from_runtime(container_id)
        try:
            cgroup = self.cgroups.without_record(container_id)
            if exists(cgroup.describe()):
                log.info("remove the cgroup of container %s, which is no more", container_id[:12])
                cgroup.kill()
                cgroup.remove()
        except (KetchError, OSError) as e:
            log.error("remove the cgroup of container %s: %s", container_id[:12], e)
            return False
        return deleted

    def _delete_from_runtime(self, container_id: str) -> bool:
        """Have another runtime that has the container delete it; a failure is logged, its cgroup is ended all the same.

        The record stays then, so that it is tried again.
        """
        try:
            remains.delete(self.paths.run_dir(container_id), container_id)
        except (KetchError, OSError, ValueError) as e:
            log.error("delete container %s from its runtime: %s", container_id[:12], e)
            return False
        return True

    def _foreign_cgroups(self) -> list[str]:
        """Short names of the cgroups under our parent whose containers neither store nor directories know."""
        here, found = common.layout(), set()
        for root in {*here.hierarchies.values(), *((here.unified,) if here.unified else ())}:
            parent = root + self.cgroups.parent_directory()
            found |= set(map(self.cgroups.named, os.listdir(parent) if os.path.isdir(parent) else ()))
        mine = set(self.unknown())
        return sorted(
            name[:12] for name in found if len(name) == 64 and name not in mine and not self.store.knows(name)
        )


def exists(described: Cgroups) -> bool:
    """Whether a cgroup has a directory in any hierarchy."""
    return any(map(os.path.isdir, {*described.get("dirs", {}).values(), described.get("dir", "")}))
