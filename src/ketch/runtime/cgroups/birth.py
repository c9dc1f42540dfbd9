"""Processes that are born in a container's cgroup, where it is on cgroup v2."""

from __future__ import annotations

import os

from ketch.linux.processes import cgroup_fork
from ketch.runtime.cgroups import common
from ketch.runtime.cgroups.systemd import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.protocol import Cgroups, StartContainer


def fork(cgroups: Cgroups | None) -> tuple[int, bool]:
    """As os.fork; in addition, whether the new process is in the cgroup: otherwise it has to join by itself.

    On v1, or without the system call, or where the kernel takes no new process (more would be too many, the cgroup
    has others below it) it is forked as any other: to move one in is allowed more often.
    """
    directory = cgroups.get("dir") if cgroups else None
    if directory is not None:
        try:
            return _fork_into(directory), True
        except OSError:  # what is wrong with it is said when it is joined
            pass
    return os.fork(), False


def fork_sibling(cgroups: Cgroups) -> int:
    """Fork a child of this process's parent in a cgroup of v2; OSError where that is not possible."""
    return _fork_into(cgroups.get("dir") or "", sibling=True)


def _fork_into(directory: str, *, sibling: bool = False) -> int:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return cgroup_fork.fork(fd, sibling=sibling)
    finally:
        os.close(fd)


def saves_time(path: str) -> bool:
    """Whether to be born in the cgroup ``path`` saves time: on v2, where it is no scope, which systemd fills."""
    return bool(path) and common.layout().version == 2 and not units.is_unit_path(path)


def saves_time_of(message: StartContainer) -> bool:
    """Whether to fork a container's first process so.

    Not in a user namespace, which has its own way (`children.crossing`), nor in a pid namespace that is joined, where
    the process that forks it would tell a number that is not the monitor's.
    """
    own = message.get("pidns", "new") in ("new", "host") and not message.get("userns")
    return own and saves_time(message.get("cgroup", ""))
