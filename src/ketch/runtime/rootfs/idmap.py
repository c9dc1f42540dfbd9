"""Id-mapped mounts: who owns a file depends on the mount it is seen through (mount_setattr(2), Linux 5.12).

The kernel takes the mapping from a user namespace: the container's own, or one that is made for the mount alone and
that nothing else of the container has to do with.  Only the owner of the file system may map it: the host.  So what is
found in the root of a container with a user namespace is mapped by its parent, which has the host's rights.
"""

from __future__ import annotations

import os
from errno import EINVAL, EPIPE

from ketch.linux import fdpass, ns
from ketch.linux import mount as m
from ketch.notation import documents
from ketch.runtime import user_namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciIdMapping
    from ketch.runtime.protocol import ChildMap
    from ketch.runtime.user_namespaces import OpenUserNamespace

HINT = (
    "only root's engine can map owners: the file system must be mounted in the engine's own user namespace"
    if ns.LIMITED
    else "the file system of the source must support id-mapped mounts (ext4, xfs, btrfs, tmpfs since Linux 6.3 …), "
    "and two mappings must not overlap"
)


def apply(tree_fd: int, uids: list[OciIdMapping], gids: list[OciIdMapping], *, recursive: bool) -> None:
    """Show the owners of a detached tree as mapped: ``containerID`` is the id on disk, ``hostID`` the one seen.

    OCI runtime-spec, ``mounts[].uidMappings``; an id in no range becomes ``nobody``.  Raises OSError.
    """
    user_fd = user_namespaces.make(uids, gids)
    try:
        set_map(tree_fd, user_fd, recursive=recursive)
    finally:
        os.close(user_fd)


def apply_namespace(tree_fd: int, user: OpenUserNamespace, *, recursive: bool = False) -> None:
    """Show the ids on disk as the container's own (OSError)."""
    set_map(tree_fd, user.fd, recursive=recursive)


def set_map(tree_fd: int, user_fd: int, *, recursive: bool) -> None:
    """Show a detached tree as the user namespace ``user_fd`` maps ids (OSError)."""
    m.mount_setattr(tree_fd, set_=m.MOUNT_ATTR_IDMAP, userns_fd=user_fd, recursive=recursive)


def ask(parent_fd: int, tree_fd: int, user_fd: int, *, recursive: bool) -> None:
    """Have the parent, at the other end of the socket ``parent_fd``, do `set_map`; its OSError is raised here."""
    message: ChildMap = {"ev": "map", "recursive": recursive}
    fdpass.send(parent_fd, documents.dumps(message).encode(), [tree_fd, user_fd])
    number = int(fdpass.recv(parent_fd, 0, size=64)[0] or EPIPE)
    if number:
        raise OSError(number, os.strerror(number))


def answer(child_fd: int, message: ChildMap, fds: list[int]) -> None:
    """Do what a child has asked for, and tell it the error's number, 0 for none; the descriptors are closed."""
    number = 0
    try:
        set_map(*fds, recursive=message["recursive"])
    except OSError as e:
        number = e.errno or EINVAL
    finally:
        for fd in fds:
            os.close(fd)
    fdpass.send(child_fd, b"%d" % number)
