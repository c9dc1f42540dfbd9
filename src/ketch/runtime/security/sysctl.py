"""Kernel parameters of the container's own namespaces, written through /proc/sys."""

from __future__ import annotations

import os
from errno import EPERM

from ketch.errors import RuntimeFailure
from ketch.linux import mount as m
from ketch.linux import ns
from ketch.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.namespaces import Plan

_STRICT = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_IPC = frozenset(
    "kernel." + name for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
# What runc says of a parameter whose namespace is the host's.
_OF_HOST = {
    "ipc": "is not allowed in the hosts ipc namespace",
    "network": "not allowed in host network namespace",
    "uts": "is not in a separate kernel namespace",
}


def check(values: dict[str, str], plan: Plan) -> None:
    """Refuse parameters of the host: each must belong to a namespace of the container's own."""
    for name in values:
        if not {"", ".", ".."}.isdisjoint(_parts(name)):
            raise RuntimeFailure(f'sysctl "{name}" is no name of a kernel parameter', step="sysctl")
        dotted = name.replace("/", ".")
        if dotted == "kernel.hostname":
            raise RuntimeFailure(
                f'sysctl "{dotted}" is not allowed as it conflicts with the OCI "hostname" field', step="sysctl"
            )
        if dotted in _IPC or dotted.startswith("fs.mqueue."):
            kind = "ipc"
        elif dotted.startswith("net."):
            kind = "network"
        elif dotted == "kernel.domainname":
            kind = "uts"
        else:
            raise RuntimeFailure(f'sysctl "{name}" is not in a separate kernel namespace', step="sysctl")
        if not plan.is_own(kind):
            raise RuntimeFailure(f'sysctl "{dotted}" {_OF_HOST[kind]}', step="sysctl")


def apply(values: dict[str, str], proc_fd: int = -1) -> None:
    """Write the values, to the procfs ``proc_fd`` that this process has just made, else to another of its own.

    Whatever stands in the container's /proc by now, a value goes to the kernel's file of that name and nowhere else.
    """
    if not values:
        return
    if proc_fd >= 0:
        _write(values, proc_fd)
        return
    proc_fd = own_proc()
    try:
        _write(values, proc_fd)
    finally:
        os.close(proc_fd)


def _write(values: dict[str, str], proc_fd: int) -> None:
    for name, value in values.items():
        dotted = name.replace("/", ".")
        try:
            fd = openat2(proc_fd, "/".join(("sys", *_parts(name))), os.O_WRONLY, 0, _STRICT)
        except OSError as e:
            raise failure("sysctl", f"open sysctl {dotted} file", e) from e
        try:
            os.write(fd, str(value).encode())
        except OSError as e:
            raise failure("sysctl", f'failed to write sysctl {dotted} = "{value}"', e) from e
        finally:
            os.close(fd)


def _parts(name: str) -> list[str]:
    """The names of directories and file, of which none leads elsewhere (`check`)."""
    return name.split("/" if "/" in name else ".")


def own_proc() -> int:
    """A procfs that nobody else has mounted; a user namespace can have none of another's processes."""
    try:
        context_fd = m.fsopen("proc")
        try:
            m.fscreate(context_fd)
            return m.fsmount(context_fd, m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC)
        finally:
            os.close(context_fd)
    except OSError as e:
        if e.errno == EPERM and ns.LIMITED:  # in the machine's pid namespace: its /proc, of which nothing is hidden yet
            return os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        raise failure("sysctl", "mount procfs to set sysctls", e) from e
