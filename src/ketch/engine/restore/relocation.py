"""Relocation of the data root: the paths in containers' records are changed to its present place.

A data root may have been moved since a record was written, or be a copy of another one: what a container mounts of it
is here, and never where the original was.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.engine.model.records import MountPoint
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.volumes.container_volumes import ContainerVolumes

log = logging.getLogger(__name__)


def relocate(data_root: str, store: ContainerStore, volumes: ContainerVolumes) -> None:
    """Relocate all containers; rows are written with the next change.  Blocking, with the driver vfs."""
    for container in store.all():
        _relocate(data_root, volumes, container.mounts)
        if container.pending is not None:
            _relocate(data_root, volumes, container.pending.mount_points or ())


def _relocate(data_root: str, volumes: ContainerVolumes, points: Iterable[MountPoint]) -> None:
    for point in points:
        if point.type == "volume":
            point.source = volumes.volumes.path_of(point.name)
        elif point.type == "image" and not any(data_root + "/" in option for option in point.layers):
            try:
                _, point.layers = volumes.image_view(point.name)
            except KetchError as e:  # its start will say so, too
                log.warning("the image that a container mounts at %s: %s", point.destination, e.message)
