"""Cgroups of containers and commands: that of a container's last start, and the choice for the next one."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ketch.engine.model import bundle_file
from ketch.errors import InvalidArgument
from ketch.runtime.cgroups import common
from ketch.runtime.cgroups.systemd import units

if TYPE_CHECKING:
    from ketch.engine.model.records import Container
    from ketch.engine.paths import ContainerPaths
    from ketch.runtime.cgroups.common import Cgroup

log = logging.getLogger(__name__)
_PREFIX = "ketch"  # of the names of scopes


def default_namespace() -> str:
    """The cgroup namespace of a container that asks for none: its own on cgroup v2, the host's on v1, as Docker's."""
    return "private" if common.layout().version == 2 else "host"


class ContainerCgroups:
    """The cgroup of each container, as a spec's ``cgroupsPath`` has it.

    That is a path relative to each hierarchy's root, or ``slice:prefix:name`` of systemd when ``parent`` is a slice.
    The bundle of the last start says which one it is: ``parent``, where the daemon puts those of containers that ask
    for nothing else, may be another one since.  What was read is remembered until `forget`.
    """

    def __init__(self, paths: ContainerPaths, parent: str, base: str = "") -> None:
        """``base``: the path of the cgroup in which a user's daemon has all others."""
        self.parent = parent
        self._base = base
        self._paths = paths
        self._known: dict[str, str] = {}

    def path(self, container: Container) -> str:
        """The cgroup that the container's last start gave it."""
        if (known := self._known.get(container.id)) is not None:
            return known
        path = bundle_file.cgroups_path(self._paths.directory(container.id)) or self._wanted(container)
        if "\0" in path or (units.is_unit_path(path) and common.layout().version != 2):
            path = self.default_path(container.id)  # earlier versions took any parent; or there are no units any more
        self._known[container.id] = path
        return path

    def choose(self, container: Container) -> str:
        """Choose the cgroup for the start under way, and record it (InvalidArgument: an impossible parent).

        One that was possible with the driver of the container's creation is none to start no more.
        """
        path, parent = self._wanted(container), container.host.cgroup_parent
        if parent and self.driver == "systemd" and not units.is_slice(parent):
            log.warning("container %s: its cgroup parent `%s` is no slice: it is in `%s`", container.name, parent, path)
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
        return self.place("", container_id)

    def place(self, parent: str, name: str) -> str:
        """The path of the cgroup ``name`` below a parent, or the daemon's without a possible one (`check_parent`)."""
        if self.driver == "cgroupfs":
            where = os.path.join(self._base, parent.lstrip("/")) if parent else self.parent
            return os.path.join("/", where, name)
        return f"{parent if units.is_slice(parent) else self.parent}:{_PREFIX}:{name}"

    def named(self, directory: str) -> str:
        """The name in `place` of a cgroup by that of its directory."""
        return directory if self.driver == "cgroupfs" else directory.removeprefix(f"{_PREFIX}-").removesuffix(".scope")

    def parent_directory(self) -> str:
        """The path of the daemon's parent cgroup, below each hierarchy's root."""
        if self.driver == "cgroupfs":
            return os.path.normpath(f"/{self.parent}")
        here = common.layout()
        return (here.given if here.manager else "") + units.slice_path(self.parent)

    def check_parent(self, parent: str) -> None:
        """Raise InvalidArgument unless ``parent``, which may be empty, can be that of a container."""
        if parent and self.driver == "systemd" and not units.is_slice(parent):
            raise InvalidArgument('cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"')

    @property
    def driver(self) -> str:
        """``systemd`` or ``cgroupfs``."""
        return "systemd" if units.is_slice(self.parent) else "cgroupfs"

    def forget(self, container_id: str) -> None:
        """Drop the path of a removed container."""
        self._known.pop(container_id, None)

    def _wanted(self, container: Container) -> str:
        return self.place(container.host.cgroup_parent, container.id)
