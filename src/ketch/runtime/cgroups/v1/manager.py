"""A container's cgroups on v1 (and hybrid): one directory in each controller's hierarchy."""

from __future__ import annotations

import os
import time
from _signal import SIGKILL  # type: ignore[import-not-found]

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups import files, refusals, tree
from ketch.runtime.cgroups.v1 import (
    blkio,
    cpu,
    cpuacct,
    cpuset,
    devices,
    freezer,
    hugetlb,
    memory,
    net_cls,
    net_prio,
    pids,
    rdma,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from ketch.runtime.cgroups.readings import CgroupReading
    from ketch.runtime.oci_types import OciResources
    from ketch.runtime.protocol import Cgroups

_APPLY: dict[str, ModuleType] = {
    "cpuset": cpuset,
    "memory": memory,
    "cpu": cpu,
    "pids": pids,
    "blkio": blkio,
    "devices": devices,
    "hugetlb": hugetlb,
    "net_cls": net_cls,
    "net_prio": net_prio,
    "rdma": rdma,
}
_ROUNDS = 4  # of a kill, until it looks whether something is frozen
_STATS: dict[str, ModuleType] = {"memory": memory, "cpuacct": cpuacct, "cpu": cpu, "pids": pids, "blkio": blkio}


class CgroupV1:
    """``dirs``: {controller: directory}; co-mounted controllers share a directory."""

    version = 1

    def __init__(self, dirs: dict[str, str]) -> None:
        self.dirs = dirs

    def describe(self) -> Cgroups:
        """The arguments of `common.open` in another process."""
        return {"version": 1, "dirs": self.dirs}

    def make(self, resources: OciResources | None = None) -> None:
        """Make the directories with their limits, and the settings that a process needs to enter."""
        for directory in dict.fromkeys(self.dirs.values()):
            tree.make(directory)
        if "cpuset" in self.dirs:
            cpuset.inherit(self.dirs["cpuset"])
        if resources:
            self.update(resources)

    def join(self) -> None:
        """Move the calling process, which must have one thread only, into every hierarchy.

        ``tasks`` with a 0 moves just the calling thread and therefore needs no lock against forks elsewhere;
        ``cgroup.procs`` waits for an RCU grace period first: 14 ms where this takes 50 µs.
        """
        for directory in dict.fromkeys(self.dirs.values()):
            files.write(directory, "tasks", "0")

    def give(self, uid: int) -> None:
        """Do nothing: who may write to a v1 cgroup may raise its limits."""

    def check(self, resources: OciResources) -> None:
        """Raise RuntimeFailure for a limit that cgroups of this version, or this machine's, do not have."""
        if self.dirs:
            refusals.check(resources, 1, self.dirs)

    def update(self, resources: OciResources) -> None:
        """Apply OCI ``linux.resources``; only what is given changes."""
        self.check(resources)
        for controller, module in _APPLY.items():
            directory = self.dirs.get(controller)
            if directory is not None:
                module.apply(directory, resources)

    def stats(self) -> CgroupReading:
        """Raw numbers by controller, without controllers that the machine lacks."""
        out: CgroupReading = {}
        for controller, module in _STATS.items():
            directory = self.dirs.get(controller)
            if directory is not None:
                module.stats(directory, out)
        return out

    def pids(self) -> list[int]:
        """Every process in the cgroup and below."""
        directory = self._any()
        return tree.pids(directory) if directory else []

    def kill(self) -> None:
        """SIGKILL everything inside, until nothing is left (bounded: two seconds).

        What is frozen does not die; an engine inside may have paused containers of its own.
        """
        if self.is_frozen():
            self.freeze(False)
        deadline = time.monotonic() + 2
        round_ = 0
        while True:
            found = self.pids()
            round_ += 1
            if found and round_ % _ROUNDS == 0 and "freezer" in self.dirs:
                freezer.thaw_below(self.dirs["freezer"])
            for pid in found:
                try:
                    os.kill(pid, SIGKILL)
                except ProcessLookupError:
                    continue
            if not found or time.monotonic() > deadline:
                return
            time.sleep(0.002)

    def freeze(self, frozen: bool) -> None:
        """Pause or resume (RuntimeFailure: there is no freezer)."""
        if "freezer" not in self.dirs:
            raise RuntimeFailure(
                "pause: the container is in no cgroup with a freezer",
                step="cgroups",
                hint="is the controller mounted? a user's containers need systemd's delegation, on cgroup v2",
            )
        freezer.freeze(self.dirs["freezer"], frozen)

    def is_frozen(self) -> bool:
        """True while paused."""
        return "freezer" in self.dirs and freezer.is_frozen(self.dirs["freezer"])

    def oom_kills(self) -> int:
        """Processes killed by the kernel for want of memory."""
        return memory.oom_kills(self.dirs["memory"]) if "memory" in self.dirs else 0

    def oom_kills_around(self) -> int:
        """0: v1 counts for each cgroup alone."""
        return 0

    def watch_oom(self) -> int:
        """An eventfd that counts how often memory ran out; -1 without the controller."""
        return memory.watch_oom(self.dirs["memory"]) if "memory" in self.dirs else -1

    def remove(self) -> None:
        """Remove the directories; a missing one is no error."""
        for directory in dict.fromkeys(self.dirs.values()):
            tree.remove(directory)

    def _any(self) -> str | None:
        for name in ("pids", "freezer", "memory", *self.dirs):
            if name in self.dirs:
                return self.dirs[name]
        return None
