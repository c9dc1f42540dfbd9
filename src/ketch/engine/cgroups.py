"""Cgroups of containers: that of a container's last start, and the choice for its next one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.engine.model import bundle_file
from ketch.errors import InvalidArgument
from ketch.runtime.cgroups import common

if TYPE_CHECKING:
    from ketch.engine.model.records import Container
    from ketch.engine.paths import ContainerPaths
    from ketch.runtime.cgroups.common import Cgroup


def default_namespace() -> str:
    """The cgroup namespace of a container that asks for none: its own on cgroup v2, the host's on v1, as Docker's."""
    return "private" if common.layout().version == 2 else "host"


class ContainerCgroups:
    """The cgroup of each container; paths are relative to each hierarchy's root.

    The bundle of the last start says which one it is: ``parent``, where the daemon puts those of containers that ask
    for nothing else, may be another one since.  What was read is remembered until `forget`.
    """

    def __init__(self, paths: ContainerPaths, parent: str) -> None:
        self.parent = parent
        self._paths = paths
        self._known: dict[str, str] = {}

    def path(self, container: Container) -> str:
        """The cgroup that the container's last start gave it."""
        if (known := self._known.get(container.id)) is not None:
            return known
        path = bundle_file.cgroups_path(self._paths.directory(container.id)) or self._wanted(container)
        if "\0" in path:  # earlier versions took any parent: a cgroup of such a name has never been
            path = self.default_path(container.id)
        self._known[container.id] = path
        return path

    def choose(self, container: Container) -> str:
        """Choose the cgroup for the start under way, and record it (InvalidArgument: an impossible parent)."""
        path = self._wanted(container)
        if "\0" in path:
            raise InvalidArgument(f"start container `{container.name}`: its cgroup parent has a NUL byte")
        self._known[container.id] = path
        return path

    def of(self, container: Container) -> Cgroup:
        """The container's cgroup as an object, whatever the machine's hierarchy."""
        return common.at(self.path(container))

    def without_record(self, container_id: str) -> Cgroup:
        """The cgroup object of a container of which only the directory is left."""
        return common.at(
            bundle_file.cgroups_path(self._paths.directory(container_id)) or self.default_path(container_id)
        )

    def default_path(self, container_id: str) -> str:
        """The path of the cgroup of a container without a parent of its own."""
        return os.path.join("/", self.parent, container_id)

    def forget(self, container_id: str) -> None:
        """Drop the path of a removed container."""
        self._known.pop(container_id, None)

    def _wanted(self, container: Container) -> str:
        return os.path.join("/", container.host.cgroup_parent or self.parent, container.id)
