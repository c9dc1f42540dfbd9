"""Upper directory of a container: its changes against the image, and their form as a layer."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ketch.runtime.rootfs import overlay, view
from ketch.storage.snapshots import diff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.engine.model.records import Container
    from ketch.images.store import ImageStore
    from ketch.storage.snapshots.overlay import Snapshots

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def opened(images: ImageStore, snapshots: Snapshots, container: Container) -> Iterator[tuple[int, int]]:
    """Descriptors of the upper directory and of the image's merged layers (-1: it has none); blocking."""
    chain_ids = images.resolve(container.image_id).chain_ids
    with ExitStack() as stack:
        upper_fd = _root_of(view.of_directory(stack.enter_context(snapshots.delta(container.id))), stack)
        lower_fd = _root_of(overlay.open_overlay(snapshots.view(chain_ids)), stack) if chain_ids else -1
        yield upper_fd, lower_fd


def _root_of(mount_fd: int, stack: ExitStack) -> int:
    stack.callback(os.close, mount_fd)
    fd = os.open(".", _DIRECTORY, dir_fd=mount_fd)
    stack.callback(os.close, fd)
    return fd


def changes(images: ImageStore, snapshots: Snapshots, container: Container) -> list[diff.Change]:
    """(path, kind) by path; blocking."""
    with opened(images, snapshots, container) as (upper_fd, lower_fd):
        return diff.changes(upper_fd, lower_fd)
