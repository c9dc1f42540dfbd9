"""Processes that are born in a container's cgroup, where it is on cgroup v2."""

from __future__ import annotations

import os

from ketch.linux import cgroup_fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.protocol import Cgroups


def fork(cgroups: Cgroups | None) -> tuple[int, bool]:
    """As os.fork; in addition, whether the new process is in the cgroup: otherwise it has to join by itself.

    On v1, or without the system call, or where the kernel takes no new process (more would be too many, the cgroup
    has others below it) it is forked as any other: to move one in is allowed more often.
    """
    directory = (cgroups or {}).get("dir")
    if directory is not None:
        try:
            return _fork_into(directory), True
        except OSError:  # what is wrong with it is said when it is joined
            pass
    return os.fork(), False


def _fork_into(directory: str) -> int:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return cgroup_fork.fork(fd)
    finally:
        os.close(fd)
