"""Kernel parameters of the container's own namespaces, written through its /proc/sys."""

from __future__ import annotations

import os

from ketch.errors import RuntimeFailure
from ketch.runtime import namespaces, paths
from ketch.runtime.failure import failure

_IPC = frozenset(
    "kernel." + name for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


def check(values: dict[str, str], plan: namespaces.Plan) -> None:
    """Refuse what would change the host: a parameter must belong to a namespace that the container has for itself."""
    for name in values:
        dotted = name.replace("/", ".")
        if dotted in _IPC or dotted.startswith("fs.mqueue."):
            kind = "ipc"
        elif dotted.startswith("net."):
            kind = "network"
        elif dotted in ("kernel.domainname", "kernel.hostname"):
            kind = "uts"
        else:
            raise RuntimeFailure(f"set sysctl `{name}`: it is not in a separate kernel namespace", step="sysctl")
        if not plan.is_own(kind):
            raise RuntimeFailure(
                f"set sysctl `{name}`: the container shares the host's {kind} namespace", step="sysctl"
            )


def apply(root_fd: int, values: dict[str, str]) -> None:
    """Write the values; /proc must be mounted and still writable."""
    for name, value in values.items():
        path = "/proc/sys/" + (name if "/" in name else name.replace(".", "/"))
        try:
            fd = paths.open_in(root_fd, path, os.O_WRONLY)
            try:
                os.write(fd, str(value).encode())
            finally:
                os.close(fd)
        except OSError as e:
            raise failure("sysctl", f"set sysctl `{name}` to `{value}`", e) from e
