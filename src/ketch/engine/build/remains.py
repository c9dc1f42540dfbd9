"""Remains of builds: commands that a killed daemon left running, or half-made, ended and removed at the next start.

Nobody waits for their result any more, so they are not taken over: their monitors are killed, and their first
processes with them, then what is left in their cgroups.  Interfaces and addresses go with the rows of endpoints, as
those of all that does not run (`NetworkManager.reconcile`); layers that were being made are the layers' own affair.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.build.command import files as command_files
from ketch.engine.monitors import process as monitor_process
from ketch.errors import KetchError

if TYPE_CHECKING:
    from ketch.engine.containers.orphans import Orphans
    from ketch.engine.paths import ContainerPaths
    from ketch.storage.snapshots.overlay import Snapshots

log = logging.getLogger(__name__)


class BuildRemains(Struct, frozen=True, eq=False):
    """Finds and removes them."""

    paths: ContainerPaths
    snapshots: Snapshots
    orphans: Orphans

    async def clear(self) -> None:
        """End and remove all of them; what cannot be removed is told in the log, and left to the next start."""
        names = await asyncio.to_thread(command_files.names, self.paths)
        if names:
            log.info("end and remove what is left of builds: %d directories", len(names))
        await asyncio.gather(*map(self._clear, names))

    async def _clear(self, name: str) -> None:
        run_dir = self.paths.run_dir(name)
        try:
            pid = await asyncio.to_thread(monitor_process.find, run_dir, name, 0)
            if pid and not await monitor_process.end(pid, name, grace_s=0):
                log.error("a build's monitor (pid %d) does not end; its files stay", pid)
                return
            await monitor_process.end_forks(name, but=0)
            if await asyncio.to_thread(self.orphans.end, name):
                await asyncio.to_thread(command_files.remove_all, name, self.paths, self.snapshots)
        except (KetchError, OSError) as e:
            log.error("remove what is left of a build (%s): %s", name, e)
