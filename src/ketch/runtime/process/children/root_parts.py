"""The parts of a container's root, opened while the host's paths exist and with the host's rights."""

from __future__ import annotations

import os

from ketch.runtime.rootfs import cgroup_mount, devices, mounts, secrets
from ketch.runtime.rootfs import root as rootfs
from ketch.runtime.rootfs.planned import BundlePlaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cgroups import common
    from ketch.runtime.oci_types import OciConfig, OciMount
    from ketch.runtime.rootfs.anchors import Anchors
    from ketch.runtime.user_namespaces import OpenUserNamespace


class RootParts:
    """Detached mounts; each step closes its own, and the end of the process the rest.

    ``planned``: the mounts of the spec, which are attached below the root.
    """

    __slots__ = ("_root_fds", "_root_path", "_secrets", "_secrets_fd", "_view", "planned")

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
        self.planned = mounts.prepare(document.get("mounts") or [], user, place)
        secrets.open_files(self.planned, bundle, user)
        if shm_fd >= 0:
            mounts.replace(self.planned, "/dev/shm", shm_fd)
        if user is not None:
            self._make_dev(document, user)
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
