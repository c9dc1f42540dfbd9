"""The directories of a container on disk, at their end."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ketch import faults
from ketch.storage.removal import try_to_remove

if TYPE_CHECKING:
    from ketch.engine.parts import Context

log = logging.getLogger(__name__)


def remove_files(ctx: Context, container_id: str) -> None:
    """Delete what a container had on disk; blocking.  What is gone already is no error.

    What cannot be removed is logged, holds up nothing else, and is tried again at the daemon's next start.
    """
    try:
        ctx.snapshots.remove(container_id)
    except OSError as e:
        log.warning("remove the files of container %s: %s: %s", container_id[:12], e.filename, e.strerror)
    faults.point("remove.snapshot-gone")
    for path in (ctx.paths.directory(container_id), ctx.paths.run_dir(container_id)):
        try_to_remove(path)
    if not os.path.lexists(ctx.paths.directory(container_id)):
        ctx.store.removals.end([container_id])
