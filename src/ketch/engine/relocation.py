"""Places under the data root that containers' records name, brought in line with where that root is now.

A data root may have been moved since a record was written, or be a copy of another one: what a container mounts of it
is here, and never where the original was.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ketch.engine.containers import pending_changes
from ketch.engine.volumes import container_volumes
from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.engine.model.records import MountPoint
    from ketch.engine.parts import Context

log = logging.getLogger(__name__)


def settle(ctx: Context) -> None:
    """Go through all containers; their rows learn it when they are written next.  Blocking, with the driver vfs."""
    for container in ctx.store.all():
        _settle(ctx, container.mounts)
        if container.pending:
            waiting = pending_changes.of(container)
            _settle(ctx, waiting.mount_points or ())
            container.pending = pending_changes.stored(waiting)


def _settle(ctx: Context, points: Iterable[MountPoint]) -> None:
    for point in points:
        if point.type == "volume":
            point.source = ctx.volumes.place(point.name)
        elif point.type == "image" and not any(ctx.paths.data_root + "/" in option for option in point.layers):
            try:
                _, point.layers = container_volumes.image_view(ctx, point.name)
            except KetchError as e:  # its start will say so, too
                log.warning("the image that a container mounts at %s: %s", point.destination, e.message)
