"""Id-mapped mounts: who owns a file depends on the mount it is seen through (mount_setattr(2), Linux 5.12).

The kernel takes the mapping from a user namespace, which nothing else of the container has to do with: a passing
child makes it, its parent writes the two maps (user_namespaces(7)), and the descriptor outlives the child.
"""

from __future__ import annotations

import os

from ketch.linux import mount as m
from ketch.linux import ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciIdMapping


def apply(tree_fd: int, uids: list[OciIdMapping], gids: list[OciIdMapping], *, recursive: bool) -> None:
    """Show the owners of a detached tree as mapped: ``containerID`` is the id on disk, ``hostID`` the one seen.

    OCI runtime-spec, ``mounts[].uidMappings``; an id in no range becomes ``nobody``.  Raises OSError.
    """
    user_fd = _user_namespace(_lines(uids), _lines(gids))
    try:
        m.mount_setattr(tree_fd, set_=m.MOUNT_ATTR_IDMAP, userns_fd=user_fd, recursive=recursive)
    finally:
        os.close(user_fd)


def _lines(mappings: list[OciIdMapping]) -> bytes:
    lines = (f"{item['containerID']} {item['hostID']} {item['size']}\n" for item in mappings)
    return "".join(lines).encode()


def _user_namespace(uid_map: bytes, gid_map: bytes) -> int:
    ready_r, ready_w = os.pipe2(os.O_CLOEXEC)
    done_r, done_w = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _child(ready_w, done_r, done_w)
    os.close(ready_w)
    os.close(done_r)
    try:
        # Its name in the /proc that is mounted here, whatever pid namespace it was born into.
        name = os.read(ready_r, 32).decode()
        if not name:
            raise OSError(1, "make a user namespace: not permitted")
        for kind, text in (("uid_map", uid_map), ("gid_map", gid_map)):
            with open(f"/proc/{name}/{kind}", "wb", buffering=0) as f:
                f.write(text)
        return os.open(f"/proc/{name}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_r)
        os.close(done_w)
        os.waitpid(pid, 0)


def _child(ready_w: int, done_r: int, done_w: int) -> None:
    try:
        os.close(done_w)
        ns.unshare(ns.CLONE_NEWUSER)
        os.write(ready_w, os.readlink("/proc/self").encode())
        os.read(done_r, 1)
    finally:
        os._exit(0)
