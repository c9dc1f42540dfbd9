"""Directories of containers on disk, and their removal."""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.failpoints import failpoint
from ketch.storage.removal import try_to_remove

if TYPE_CHECKING:
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.paths import ContainerPaths
    from ketch.storage.removal import Remover
    from ketch.storage.snapshots.overlay import Snapshots

log = logging.getLogger(__name__)


class ContainerDirectories(Struct, frozen=True, eq=False):
    """The directories of all containers."""

    store: ContainerStore
    paths: ContainerPaths
    snapshots: Snapshots
    remover: Remover

    def remove(self, container_id: str) -> None:
        """Delete a container's directories; blocking.  A missing one is no error.

        What cannot be removed is logged, holds up nothing else, and is tried again at the daemon's next start.
        """
        try:
            self.snapshots.remove(container_id)
        except OSError as e:
            log.warning("remove the files of container %s: %s: %s", container_id[:12], e.filename, e.strerror)
        failpoint("remove.snapshot-gone")
        for path in (self.paths.directory(container_id), self.paths.run_dir(container_id)):
            try_to_remove(path)
        if not os.path.lexists(self.paths.directory(container_id)):
            self.store.removals.end([container_id])

    def remove_later(self, container_id: str) -> None:
        """`remove` in the background."""
        self.remover.later(functools.partial(self.remove, container_id))
