"""A container's cgroup on the unified hierarchy."""

from __future__ import annotations

import os
import select
import time

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups import files, refusals, tree
from ketch.runtime.cgroups.v1 import pids, rdma
from ketch.runtime.cgroups.v2 import cpu, cpuset, devices, hugetlb, io, memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from ketch.runtime.cgroups.readings import CgroupReading
    from ketch.runtime.oci_types import OciResources
    from ketch.runtime.protocol import Cgroups

_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids", "hugetlb", "misc", "rdma")
_DELEGATED = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
_APPLY: tuple[ModuleType, ...] = (cpuset, cpu, io, memory, pids, hugetlb, rdma)


class CgroupV2:
    """``directory``: the cgroup; ``root``: where the hierarchy is mounted (only `make` needs it)."""

    version = 2

    def __init__(self, directory: str, root: str = "/sys/fs/cgroup") -> None:
        self.directory = directory
        self.root = root

    def describe(self) -> Cgroups:
        """The arguments of `common.open` in another process."""
        return {"version": 2, "dir": self.directory}

    def make(self, resources: OciResources | None = None) -> None:
        """Make the directory with its limits."""
        tree.make(self.directory)
        self.enable_controllers()
        if resources:
            self.update(resources)

    def enable_controllers(self) -> None:
        """Enable the cgroup's controllers, from the root of the hierarchy down."""
        here = self.root
        for name in os.path.relpath(os.path.dirname(self.directory), self.root).split("/"):
            _delegate(here)
            if name != ".":
                here = f"{here}/{name}"
        _delegate(here)

    def join(self) -> None:
        """Move the calling process in."""
        files.write(self.directory, "cgroup.procs", "0")

    def give(self, uid: int) -> None:
        """Give the directory and the files that can be delegated to a user (cgroups(7), "Cgroup delegation")."""
        os.chown(self.directory, uid, -1)
        for name in files.read_or("/sys/kernel/cgroup", "delegate").split() or _DELEGATED:
            try:
                os.chown(f"{self.directory}/{name}", uid, -1)
            except FileNotFoundError:
                continue  # of a controller that is not enabled here

    def check(self, resources: OciResources) -> None:
        """Raise RuntimeFailure for a limit that cgroups of this version, or this machine's, do not have."""
        refusals.check(resources, 2)

    def update(self, resources: OciResources) -> None:
        """Apply OCI ``linux.resources``; only what is given changes."""
        self.check(resources)
        for module in _APPLY:
            module.apply(self.directory, resources)
        for name, value in (resources.get("unified") or {}).items():
            if "/" in name:
                raise RuntimeFailure(f"set cgroup file `{name}`: not a file name", step="cgroups")
            for line in str(value).split("\n"):
                files.write(self.directory, name, line)
        devices.apply(self.directory, resources)

    def stats(self) -> CgroupReading:
        """Raw numbers by controller."""
        out: CgroupReading = {}
        for module in (memory, cpu, pids, io):
            module.stats(self.directory, out)
        return out

    def pids(self) -> list[int]:
        """Every process in the cgroup and below."""
        return tree.pids(self.directory)

    def kill(self) -> None:
        """SIGKILL everything inside at once (Linux 5.14); frozen processes die as well."""
        try:
            files.write(self.directory, "cgroup.kill", "1")
        except FileNotFoundError:
            return  # the cgroup is gone
        self._wait("populated", 0, 2.0)

    def freeze(self, frozen: bool) -> None:
        """Freeze or thaw; returns when every process has followed."""
        files.write(self.directory, "cgroup.freeze", int(frozen))
        if not self._wait("frozen", int(frozen), 5.0):
            if frozen:
                files.write(self.directory, "cgroup.freeze", 0)
            raise RuntimeFailure(f"freeze cgroup `{self.directory}`: not done after 5 s", step="freeze")

    def is_frozen(self) -> bool:
        """True while paused."""
        return files.read_or(self.directory, "cgroup.freeze") == "1"

    def oom_kills(self) -> int:
        """Processes killed by the kernel for want of memory, here and below."""
        return memory.oom_kills(self.directory)

    def oom_kills_around(self) -> int:
        """The same in the whole parent."""
        return memory.oom_kills(os.path.dirname(self.directory))

    def watch_oom(self) -> int:
        """``memory.events``, read once: the kernel announces its next change; -1 without the controller."""
        return memory.watch_oom(self.directory)

    def remove(self) -> None:
        """Remove the directory; a missing one is no error."""
        tree.remove(self.directory)

    def _wait(self, key: str, value: int, timeout_s: float) -> bool:
        """Wait for a value in ``cgroup.events``, whose changes poll(2) reports as POLLPRI."""
        try:
            fd = os.open(f"{self.directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            deadline = time.monotonic() + timeout_s
            while True:
                if files.pairs(files.read_again(fd)).get(key) == value:
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                poll.poll(left * 1000)
        except FileNotFoundError:
            return True  # removed meanwhile, as systemd does when the last process has ended
        finally:
            os.close(fd)


def _delegate(directory: str) -> None:
    """Enable controllers for the children, one by one if the kernel refuses all together."""
    available = set(files.read(directory, "cgroup.controllers").split())
    enabled = set(files.read(directory, "cgroup.subtree_control").split())
    missing = [name for name in _CONTROLLERS if name in available and name not in enabled]
    if not missing:
        return
    try:
        files.write(directory, "cgroup.subtree_control", " ".join(f"+{name}" for name in missing))
    except OSError:
        for name in missing:
            try:
                files.write(directory, "cgroup.subtree_control", f"+{name}")
            except OSError:
                continue  # not ours to give; a limit that needs it will say so
