"""A network of one's own for tests and daemons that change the machine's: dockerd makes docker0, sets policies."""

from __future__ import annotations

import ctypes
import subprocess

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000

# A sysfs shows the links of the namespace that mounted it; the cgroups stay the machine's.
_SCRIPT = """
    set -e; mount --make-rprivate /; ip link set lo up
    cgroups=$(mktemp -d); mount --rbind /sys/fs/cgroup $cgroups
    mount -t sysfs sysfs /sys; mount --rbind $cgroups /sys/fs/cgroup; umount -l $cgroups; rmdir $cgroups
"""


def own_network(*, propagates: bool = False) -> None:
    """Move this process, and what it starts from now on, to new network and mount namespaces; needs root.

    ``propagates``: mounts that are made here later are seen in the mount namespaces of what was started before.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare: a network namespace needs root")
    subprocess.run(["sh", "-c", _SCRIPT], check=True)
    if propagates:
        subprocess.run(["mount", "--make-rshared", "/"], check=True)
