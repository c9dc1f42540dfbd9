"""Id-mapped mounts: who owns a file depends on the mount it is seen through (mount_setattr(2), Linux 5.12).

The kernel takes the mapping from a user namespace: the container's own, or one that is made for the mount alone and
that nothing else of the container has to do with.
"""

from __future__ import annotations

import os

from ketch.linux import mount as m
from ketch.runtime import user_namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciIdMapping
    from ketch.runtime.user_namespaces import OpenUserNamespace

HINT = (
    "the file system of the source must support id-mapped mounts (ext4, xfs, btrfs, tmpfs since Linux 6.3 …), and two "
    "mappings must not overlap"
)


def apply(tree_fd: int, uids: list[OciIdMapping], gids: list[OciIdMapping], *, recursive: bool) -> None:
    """Show the owners of a detached tree as mapped: ``containerID`` is the id on disk, ``hostID`` the one seen.

    OCI runtime-spec, ``mounts[].uidMappings``; an id in no range becomes ``nobody``.  Raises OSError.
    """
    user_fd = user_namespaces.make(uids, gids)
    try:
        m.mount_setattr(tree_fd, set_=m.MOUNT_ATTR_IDMAP, userns_fd=user_fd, recursive=recursive)
    finally:
        os.close(user_fd)


def apply_namespace(tree_fd: int, user: OpenUserNamespace, *, recursive: bool = False) -> None:
    """Show the ids on disk as the container's own (OSError)."""
    m.mount_setattr(tree_fd, set_=m.MOUNT_ATTR_IDMAP, userns_fd=user.fd, recursive=recursive)
