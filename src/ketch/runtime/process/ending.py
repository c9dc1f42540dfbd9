"""A container's end: its processes, its exit record, the removal of its cgroup."""

from __future__ import annotations

import os
from _signal import SIGKILL  # type: ignore[import-not-found]

from ketch.contexts import suppress
from ketch.errors import KetchError
from ketch.runtime.cgroups import common
from ketch.runtime.process import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.protocol import Cgroups, ExitRecord


def keep_record(run_dir: str, record: ExitRecord) -> bool:
    """Write the exit record; False when that can be retried (not if the exec root is gone)."""
    try:
        messages.write_record(run_dir, messages.EXIT_RECORD, record)
    except OSError as e:
        return isinstance(e, FileNotFoundError)
    return True


def kill(cgroups: Cgroups | None) -> None:
    """SIGKILL the processes of a cgroup."""
    if cgroups:
        with suppress(OSError, KetchError):
            common.open(cgroups).kill()


def out_of_memory(cgroups: Cgroups | None) -> bool:
    """Whether the kernel killed a process of the cgroup for want of memory."""
    if cgroups:
        with suppress(OSError, KetchError):
            return common.open(cgroups).oom_kills() > 0
    return False


def remove_cgroup(cgroups: Cgroups | None, path: str, *, with_processes: bool) -> None:
    """Remove the cgroup; ``path`` is its place when it was not described yet."""
    cgroup = common.open(cgroups) if cgroups else common.at(path) if path else None
    if cgroup is None:
        return
    if with_processes:
        with suppress(OSError, KetchError):
            cgroup.kill()
    with suppress(OSError, KetchError):
        cgroup.remove()


def has_ended(pid: int) -> bool:
    """Whether a child has ended, whose status is left to be taken."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def end(pid: int) -> None:
    """Kill a child, unless it has ended, and wait for its end."""
    with suppress(ProcessLookupError):
        os.kill(pid, SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
