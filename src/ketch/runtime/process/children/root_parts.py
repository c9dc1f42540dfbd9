"""The parts of a container's root, opened while the host's paths exist and with the host's rights."""

from __future__ import annotations

import os

from ketch.linux import mount as m
from ketch.linux.ns import LIMITED
from ketch.runtime.failure import failure
from ketch.runtime.rootfs import cgroup_mount, devices, mounts, secrets
from ketch.runtime.rootfs import root as rootfs
from ketch.runtime.rootfs.mount_options import MountOptions
from ketch.runtime.rootfs.planned import BundlePlaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cgroups import common
    from ketch.runtime.oci_types import OciConfig, OciMount
    from ketch.runtime.rootfs.anchors import Anchors
    from ketch.runtime.rootfs.planned import Planned
    from ketch.runtime.user_namespaces import OpenUserNamespace


class RootParts:
    """Detached mounts; each step closes its own, and the end of the process the rest.

    ``planned``: the mounts of the spec, which are attached below the root.
    """

    __slots__ = ("_kept", "_root_fds", "_root_path", "_secrets", "_secrets_fd", "_view", "nodes", "planned")

    def __init__(
        self,
        bundle: str,
        document: OciConfig,
        mounts_of_root: list[OciMount],
        shm_fd: int,
        user: OpenUserNamespace | None = None,
    ) -> None:
        """Open them (RuntimeFailure); ``shm_fd``: what takes the place of /dev/shm, -1: nothing does.

        With ``user`` this process is in a mount namespace that passes.
        """
        self._root_path = os.path.join(bundle, document["root"]["path"])
        self._root_fds = rootfs.open_all(mounts_of_root, self._root_path, user)
        place = BundlePlaces(bundle, self._root_path) if not mounts_of_root else None
        label = (document.get("linux") or {}).get("mountLabel") or ""
        self.planned = mounts.plan(document.get("mounts") or [], place, label)
        if shm_fd >= 0:
            mounts.replace(self.planned, "/dev/shm", shm_fd)
        for mount in self.planned:
            mounts.open_one(mount, user)
            if user is None:
                mounts.make_early(mount)
        secrets.open_files(self.planned, bundle, user)
        self.nodes: dict[str, int] | None = None
        if user is not None:
            self._make_dev(document, user)
        elif LIMITED:
            self.nodes = devices.borrowed((document.get("linux") or {}).get("devices") or [])
        self._kept: list[Planned] = []
        self._view: cgroup_mount.CgroupView | None = None
        self._secrets = secrets.read(document)
        self._secrets_fd = secrets.make(self._secrets, user)

    def _make_dev(self, document: OciConfig, user: OpenUserNamespace) -> None:
        for mount in self.planned:
            if mount.destination == "/dev" and mount.fstype == "tmpfs" and not mount.options.bind:
                given = (document.get("linux") or {}).get("devices") or []
                mount.tree_fd = devices.make_file_system(mount, given, user)

    def open_cgroups(self, cgroup: common.Cgroup | None) -> None:
        """Open the container's cgroups, if they are mounted."""
        if any(mount.fstype in ("cgroup", "cgroup2") for mount in self.planned):
            self._view = cgroup_mount.CgroupView(cgroup)

    def leave(self, bundle: str) -> None:
        """Leave the mounts to the mount namespace that is made next, and belongs to another user namespace.

        What the kernel copies from one to the other stays as it is: nobody there makes it writable or executable again,
        or unmounts a part of it and sees what that covers (mount_namespaces(7)).  What is attached later is not so
        protected.  They lie in the working directory, which the next namespace has as well, where the root will be.
        """
        place_fd = mounts.make_file_system("tmpfs", "tmpfs", MountOptions(["mode=755"]))
        try:
            rootfs.attach_trees([place_fd], self._root_path if os.path.isdir(self._root_path) else bundle)
            for mount in self.planned:
                if mount.tree_fd >= 0:
                    self._leave_one(mount, place_fd)
            os.fchdir(place_fd)
        except OSError as e:
            raise failure("mounts", "keep the mounts for the user namespace", e) from e
        finally:
            os.close(place_fd)

    def _leave_one(self, mount: Planned, place_fd: int) -> None:
        name = str(len(self._kept))
        if mount.directory:
            os.mkdir(name, dir_fd=place_fd)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, dir_fd=place_fd))
        target_fd = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=place_fd)
        try:
            m.move_mount(mount.tree_fd, target_fd)
        finally:
            os.close(target_fd)
        os.close(mount.tree_fd)
        mount.tree_fd = -1
        self._kept.append(mount)

    def take(self, parent_fd: int) -> None:
        """Take the mounts in the next namespace, and make others; the parent at ``parent_fd`` has the host's rights."""
        names = {mount: str(number) for number, mount in enumerate(self._kept)}
        for mount in self.planned:
            try:
                if mount in names:
                    mount.tree_fd = m.open_tree(names[mount], recursive=True)
            except OSError as e:
                raise failure("mounts", mount.describe(), e) from e
            mounts.make_early(mount)
            mount.mapper_fd = parent_fd
        os.chdir("/")

    def attach_root(self, bundle: str) -> str:
        """Attach the root somewhere in this mount namespace; where it is."""
        return rootfs.attach(self._root_fds, self._root_path, bundle)

    def attach(self, anchors: Anchors, root_fd: int) -> None:
        """Attach all else, in the root."""
        for mount in self.planned:
            if self._view is not None and mount.fstype in ("cgroup", "cgroup2"):
                self._view.attach(mount, anchors)
            else:
                mounts.attach(mount, anchors)
        secrets.attach(root_fd, self._secrets, self._secrets_fd)
