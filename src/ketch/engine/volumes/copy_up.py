"""Copy-up of a new volume: it is filled with the image's files at its mount point, as Docker does.

The image's layers are looked at through a detached, read-only overlay mount: it appears in no directory and goes
with its descriptor.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.errors import FailedPrecondition
from ketch.failpoints import failpoint
from ketch.runtime.rootfs import overlay, paths
from ketch.storage.tree_copy import Copier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from ketch.engine.model.records import MountPoint
    from ketch.storage.snapshots.overlay import Snapshots


def populate(
    snapshots: Snapshots,
    chain_ids: Sequence[str],
    points: Sequence[MountPoint],
    mounted: Callable[[str], AbstractContextManager[object]],
    check: Callable[[], None],
) -> None:
    """Fill those of these mounts that are empty volumes (``nocopy`` ones stay empty); blocking.

    A volume is ``mounted`` while it is looked at, if there is something to fill it with: a share that does not answer
    is an error of the start.  ``check`` is called now and then; what it raises ends the copy.  FailedPrecondition where
    the image has a file.
    """
    wanted = [p for p in points if p.type == "volume" and _wants_copy(p)]
    if not wanted or not chain_ids:
        return
    root_fd = overlay.open_overlay(snapshots.view(chain_ids))
    try:
        for point in wanted:
            try:
                source_fd = paths.open_in(root_fd, point.destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            except NotADirectoryError as e:
                raise FailedPrecondition(
                    f"source {point.destination} is not directory", hint="a volume cannot be mounted on an image's file"
                ) from e
            try:
                with mounted(point.name):
                    if not os.listdir(point.source):
                        _copy(source_fd, point.source, check)
            finally:
                os.close(source_fd)
    finally:
        os.close(root_fd)


def _wants_copy(point: MountPoint) -> bool:
    options = point.spec.volume_options if point.spec is not None else None
    return "nocopy" not in point.mode.split(",") and not (options is not None and (options.no_copy or options.subpath))


def _copy(source_fd: int, target: str, check: Callable[[], None]) -> None:
    """Copy the content, and the directory's own owner, mode, times and xattrs."""
    target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        Copier(target_fd, check).tree(source_fd)
        failpoint("create.volume-copied")
    finally:
        os.close(target_fd)
