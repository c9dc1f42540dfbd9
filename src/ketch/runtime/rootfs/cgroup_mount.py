"""The container's view of its cgroups at /sys/fs/cgroup.

v2: the container's own cgroup is bound there.  v1: a tmpfs with one directory a hierarchy, each the container's
own cgroup in it.  Binding the very directory shows the same as a mount made in the cgroup namespace would (paths are
printed relative to the reader's namespace), costs a third of the calls, and confines a container without a
cgroup namespace as well.
"""

from __future__ import annotations

import os

from ketch.linux import mount as m
from ketch.runtime.cgroups import common
from ketch.runtime.failure import failure
from ketch.runtime.rootfs import paths
from ketch.runtime.rootfs.mount_options import MountOptions
from ketch.runtime.rootfs.mounts import make_file_system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciConfig
    from ketch.runtime.rootfs.anchors import Anchors
    from ketch.runtime.rootfs.planned import Planned

_GUARD = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC


class CgroupView:
    """Open trees of the container's cgroup directories; made while the host's paths exist."""

    __slots__ = ("links", "trees")

    def __init__(self, cgroup: common.Cgroup | None) -> None:
        self.trees: list[tuple[str, int]] = []
        self.links: list[tuple[str, str]] = []
        for name, directory, aliases in _directories(cgroup):
            try:
                self.trees.append((name, m.open_tree(directory)))
            except OSError as e:
                raise failure("mounts", f"open cgroup `{directory}`", e) from e
            self.links += [(alias, name) for alias in aliases]

    def attach(self, mount: Planned, anchors: Anchors) -> None:
        """Mount the view as the spec's entry of type ``cgroup`` asks."""
        attributes = mount.options.set & ~m.MOUNT_ATTR__ATIME
        try:
            target_fd = paths.make_dirs(*anchors.find(mount.destination))
            try:
                if len(self.trees) == 1 and not self.trees[0][0]:
                    self._move(self.trees[0][1], target_fd, attributes)
                else:
                    self._attach_v1(target_fd, attributes)
            finally:
                os.close(target_fd)
        except OSError as e:
            raise failure("mounts", f"mount cgroups on `{mount.destination}`", e) from e

    def _attach_v1(self, target_fd: int, attributes: int) -> None:
        tmpfs_fd = make_file_system("tmpfs", "tmpfs", MountOptions(["mode=755"]), attributes=_GUARD)
        m.move_mount(tmpfs_fd, target_fd)
        for name, tree_fd in self.trees:
            os.mkdir(name, 0o755, dir_fd=tmpfs_fd)
            target_fd = os.open(name, paths.O_PATH | os.O_NOFOLLOW, dir_fd=tmpfs_fd)
            try:
                self._move(tree_fd, target_fd, attributes)
            finally:
                os.close(target_fd)
        for alias, name in self.links:
            os.symlink(name, alias, dir_fd=tmpfs_fd)
        if attributes & m.MOUNT_ATTR_RDONLY:
            m.mount_setattr(tmpfs_fd, set_=m.MOUNT_ATTR_RDONLY)
        os.close(tmpfs_fd)

    @staticmethod
    def _move(tree_fd: int, target_fd: int, attributes: int) -> None:
        m.mount_setattr(tree_fd, set_=attributes, clear=m.MOUNT_ATTR_RDONLY & ~attributes)
        m.move_mount(tree_fd, target_fd)
        os.close(tree_fd)


def is_writable(document: OciConfig) -> bool:
    """Whether the container may write to the cgroups that are mounted in it."""
    return any(
        mount.get("type") in ("cgroup", "cgroup2") and "ro" not in (mount.get("options") or ())
        for mount in document.get("mounts") or ()
    )


def _directories(cgroup: common.Cgroup | None) -> list[tuple[str, str, list[str]]]:
    """(name below /sys/fs/cgroup or "" for v2, host directory, other names of it)."""
    layout = common.layout()
    if cgroup is not None:
        description = cgroup.describe()
        if description["version"] == 2:
            return [("", description["dir"], [])]
        dirs: dict[str, str] = description["dirs"]
    else:
        own = common.own_paths()
        if layout.version == 2:
            return [("", (layout.unified or "") + own.get("", "/"), [])]
        dirs = {name: mount_point + own.get(name, "/") for name, mount_point in layout.hierarchies.items()}
    found: dict[str, tuple[str, list[str]]] = {}
    for controller, directory in dirs.items():
        name = os.path.basename(layout.hierarchies[controller])
        _, aliases = found.setdefault(name, (directory, []))
        plain = controller.removeprefix("name=")
        if plain != name:
            aliases.append(plain)
    return [(name, directory, aliases) for name, (directory, aliases) in found.items()]
