"""Overlay for all containers but those whose owners are mapped, which get plain copies of their images.

Before Linux 5.19 the kernel maps the owners of a directory, and not those of overlay's layers.  Which of the two a
container has is seen on the disk: ``containers/<id>/base`` is a copy's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from ketch.storage.snapshots.overlay import Mounts, OverlaySnapshots, Snapshots
    from ketch.storage.snapshots.vfs import VfsSnapshots


class SnapshotsWithCopies:
    """Both drivers; ``needed``: new containers with mapped owners get copies, as those do that have one already."""

    copies = True

    def __init__(self, data_root: str, overlay: OverlaySnapshots, vfs: VfsSnapshots, *, needed: bool) -> None:
        self._containers = os.path.join(data_root, "containers")
        self._overlay, self._vfs, self._needed = overlay, vfs, needed
        self.name = overlay.name
        self.warnings = [*overlay.warnings]

    def _of(self, container_id: str) -> Snapshots:
        copied = os.path.lexists(os.path.join(self._containers, container_id, "base"))
        return self._vfs if copied else self._overlay

    def driver(self, container_id: str) -> str:
        """The name of the driver that has the container."""
        return self._of(container_id).name

    def check_limit(self, size: int) -> None:
        """Raise InvalidArgument when overlay cannot limit a container; a copy cannot be limited, says `prepare`."""
        self._overlay.check_limit(size)

    def prepare(self, container_id: str, chain_ids: Sequence[str], size: int = 0, mapped: bool = False) -> Mounts:
        """Make an active snapshot over these layers, a copy where their owners have to be ``mapped``."""
        used = self._vfs if mapped and self._needed else self._of(container_id)
        return used.prepare(container_id, chain_ids, size, mapped)

    def exists(self, container_id: str) -> bool:
        """Whether the active snapshot exists."""
        return self._of(container_id).exists(container_id)

    def is_blank(self, container_id: str) -> bool:
        """Whether nothing was ever written to the container's directory."""
        return self._of(container_id).is_blank(container_id)

    def mounts(self, container_id: str, chain_ids: Sequence[str], readonly: bool = False) -> Mounts:
        """The mounts of the container's root."""
        return self._of(container_id).mounts(container_id, chain_ids, readonly)

    def view(self, chain_ids: Sequence[str]) -> list[str]:
        """Overlay options for a read-only view of these layers."""
        return self._overlay.view(chain_ids)

    def upper(self, container_id: str) -> str:
        """The directory that a container writes to."""
        return self._of(container_id).upper(container_id)

    def delta(self, container_id: str) -> AbstractContextManager[str]:
        """A directory with the container's changes, in overlay's form."""
        return self._of(container_id).delta(container_id)

    def usage(self, container_id: str) -> int:
        """Bytes of the files that the container has written."""
        return self._of(container_id).usage(container_id)

    def remove(self, container_id: str) -> None:
        """Delete the snapshot; one that is gone is no error."""
        self._of(container_id).remove(container_id)

    def close(self) -> None:
        """End what serves roots."""
        self._overlay.close()

    def status(self) -> list[list[str]]:
        """The rows of ``docker info`` that overlay has."""
        return self._overlay.status()
