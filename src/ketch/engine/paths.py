"""Directories of a container under the data root (files) and the exec root (sockets)."""

from __future__ import annotations

import os

from msgspec import Struct

OF_A_BUILD = "build-"  # begins the names of the directories of a build's commands, which no row names


class ContainerPaths(Struct, frozen=True):
    """All paths that follow from a container's id; ``data_root`` and ``exec_root`` are absolute."""

    data_root: str
    exec_root: str

    def directory(self, container_id: str) -> str:
        """``containers/<id>`` under the data root."""
        return os.path.join(self.data_root, "containers", container_id)

    def run_dir(self, container_id: str) -> str:
        """The container's directory under the exec root (sockets, exit record)."""
        return os.path.join(self.exec_root, "run", container_id)

    @property
    def mounts(self) -> str:
        """The mount point of roots for other runtimes, the same for all: each has a mount namespace of its own."""
        return os.path.join(self.exec_root, "mounts")

    def log_dir(self, container_id: str) -> str:
        """The directory of the container's log."""
        return os.path.join(self.directory(container_id), "log")
