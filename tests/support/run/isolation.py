"""A network of one's own for tests and daemons that change the machine's: dockerd makes docker0, sets policies."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1

# A sysfs shows the links of the namespace that mounted it; the cgroups and the security modules stay the machine's.
_SCRIPT = """
    set -e; mount --make-rprivate /
    test -d /sys/kernel/security/apparmor && modules=yes || modules=no
    cgroups=$(mktemp -d); mount --rbind /sys/fs/cgroup $cgroups
    mount -t sysfs sysfs /sys; mount --rbind $cgroups /sys/fs/cgroup; umount -l $cgroups; rmdir $cgroups
    test $modules = no || mount -t securityfs securityfs /sys/kernel/security
"""

_THREADS = "/proc/thread-self/ns/net"
_machines: int | None = None  # the machine's network, once this process has left it


def own_network(*, propagates: bool = False) -> None:
    """Move this process, and what it starts from now on, to new network and mount namespaces; needs root.

    ``propagates``: mounts that are made here later are seen in the mount namespaces of what was started before.
    """
    global _machines
    _machines = os.open(_THREADS, os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare: a network namespace needs root")
    subprocess.run(["sh", "-c", _SCRIPT], check=True)
    with socket.socket() as one:
        fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))  # iproute2 may be missing
    if propagates:
        subprocess.run(["mount", "--make-rshared", "/"], check=True)


@contextlib.contextmanager
def network_of_the_machine() -> Iterator[None]:
    """Have this thread, and what it starts, reach other machines meanwhile."""
    if _machines is None:
        yield
        return
    own = os.open(_THREADS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(_machines)
        try:
            yield
        finally:
            _enter(own)
    finally:
        os.close(own)


def _enter(network: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(network, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns: cannot change to another network namespace")
