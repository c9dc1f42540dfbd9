"""Sweep at the daemon's start: cgroups and directories of containers that no longer exist."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.monitors import process as monitor_process
from ketch.storage.database.db import REPAIR
from ketch.storage.lost import Lost, is_ours

if TYPE_CHECKING:
    from ketch.engine.containers.orphans import Orphans
    from ketch.engine.files.directories import ContainerDirectories
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.paths import ContainerPaths
    from ketch.storage.snapshots.overlay import Snapshots

log = logging.getLogger(__name__)


class Sweep(Struct, frozen=True, eq=False):
    """Removes orphaned cgroups and directories; directories of a container that lost its row go to ``lost/``."""

    store: ContainerStore
    paths: ContainerPaths
    snapshots: Snapshots
    orphans: Orphans
    directories: ContainerDirectories

    def run(self) -> None:
        """Sweep once; blocking (OSError: a directory cannot be read)."""
        self.orphans.clear_stopped()
        lost, removals = Lost(self.paths.data_root), self.store.removals.pending()
        for name in filter(is_ours, self.orphans.unknown()):
            directory, run_dir = self.paths.directory(name), self.paths.run_dir(name)
            known_to_go = name in removals or not os.path.isdir(directory) or self.snapshots.is_blank(name)
            if not known_to_go and monitor_process.find(run_dir, name, 0):
                log.warning("container %s runs, and its row is lost: it is left alone; %s", name[:12], REPAIR)
            elif not self.orphans.end(name):
                continue
            elif known_to_go:
                log.info("remove what is left of container %s", name[:12])
                self.directories.remove_later(name)
            else:
                lost.put("containers", directory)
        self.store.removals.end(name for name in removals if not os.path.lexists(self.paths.directory(name)))
