"""A container's cgroup as a scope of systemd, on the unified hierarchy.

A scope lives as long as a process is in it: it is made with the first one, and systemd removes it after the last.
Nobody else may remove its directory: systemd, which watches a file in it, would not hear of its end, and keep the unit.
So it is waited for, and asked only if it is late.  What speaks to it is imported where that happens: many come back to
a cgroup, by `open` with what `describe` gave, who have nothing to tell systemd.
"""

from __future__ import annotations

import os
import time
from errno import EBUSY

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups import files, tree
from ketch.runtime.cgroups.v2.manager import CgroupV2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ketch.runtime.oci_types import OciCpu, OciResources
    from ketch.runtime.protocol import Cgroups

_REMOVED_S = 0.5  # how long systemd may take to remove the cgroup of a scope until it is asked
_FORGOTTEN_S = 5.0  # how long it may take to forget a scope that has ended


class SystemdCgroup(CgroupV2):
    """``directory``: the cgroup's; ``unit``: the scope.

    Only a start needs ``parent``, its slice, and the configuration's ``annotations``.
    """

    def __init__(
        self, directory: str, root: str, unit: str, parent: str = "", annotations: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(directory, root)
        self.unit = unit
        self._parent = parent
        self._annotations = annotations or {}
        self._ours = False

    @classmethod
    def at(cls, cgroups_path: str, root: str, annotations: Mapping[str, str] | None = None) -> SystemdCgroup:
        """The cgroup of ``slice:prefix:name``."""
        from ketch.runtime.cgroups.systemd import units

        place = units.parse(cgroups_path)
        return cls(root + place.path, root, place.unit, place.slice, annotations)

    def describe(self) -> Cgroups:
        """The arguments of `common.open` in another process."""
        return {"version": 2, "dir": self.directory, "unit": self.unit}

    def make(self, resources: OciResources | None = None) -> None:
        """Start the scope with its limits; the calling process is in it afterwards.

        RuntimeFailure: systemd refused, or there is a scope of that name with processes in it.
        """
        from ketch.runtime.cgroups.systemd import annotations, properties, scopes

        self._ours = True  # from now on there is nothing that somebody would have to remove
        name = self.unit.removesuffix(".scope")
        wanted = properties.of_new_scope(f"Ketch container {name}", self._parent, _host_pid(), resources or {})
        wanted += annotations.properties(self._annotations)
        for _ in _attempts():
            if scopes.start(self.unit, wanted):
                break
            if self._has_processes():
                raise self._taken()
        else:
            raise self._taken()
        if resources:
            if _needs_more(resources):
                self.enable_controllers()
            super().update(resources)

    def share(self, description: str, pid: int = 0) -> None:
        """Start the scope with a process (0: the calling one), or have it enter the one that is there."""
        from ketch.runtime.cgroups.systemd import properties, scopes, units

        self._ours = True
        pid = pid or _host_pid()
        wanted = properties.of_new_scope(description, self._parent, pid, {}, longer=True)
        wanted.append(("Before", ("as", [units.LAST])))
        for _ in _attempts():
            if scopes.start(self.unit, wanted) or scopes.attach(self.unit, pid):
                return
        raise self._taken()

    def join(self) -> None:
        """Move the calling process in, if it is not the one that made it."""
        if not self._ours:
            super().join()

    def update(self, resources: OciResources) -> None:
        """Apply OCI ``linux.resources``; only what is given changes."""
        from ketch.runtime.cgroups.systemd import properties, scopes

        self.check(resources)
        changed = properties.of_limits(self._with_whole_quota(resources))
        if changed:
            scopes.change(self.unit, changed)
        super().update(resources)

    def _with_whole_quota(self, resources: OciResources) -> OciResources:
        """Resources in which a quota has its period, and a period its quota: a unit has no half of them."""
        cpu = resources.get("cpu") or {}
        if bool(cpu.get("quota")) == bool(cpu.get("period")):
            return resources
        quota, _, period = files.read_or(self.directory, "cpu.max").strip().partition(" ")
        if not period:
            return resources
        known: OciCpu = {"quota": -1 if quota == "max" else int(quota), "period": int(period)}
        return {**resources, "cpu": {**known, **{name: value for name, value in cpu.items() if value}}}  # type: ignore[typeddict-item]

    def remove(self) -> None:
        """Wait until systemd has removed the cgroup; one that holds the caller goes with it.

        A scope that systemd keeps although nothing is in it is stopped.
        """
        if self._ours or self._wait_for_end():
            return
        if self._has_processes():
            raise OSError(EBUSY, os.strerror(EBUSY), self.directory)
        from ketch.runtime.cgroups.systemd import scopes

        scopes.stop(self.unit)
        if not self._wait_for_end():
            tree.remove(self.directory)

    def _wait_for_end(self) -> bool:
        deadline, pause = time.monotonic() + _REMOVED_S, 0.0002
        while os.path.exists(self.directory):
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        return True

    def _has_processes(self) -> bool:
        return files.pairs(files.read_or(self.directory, "cgroup.events")).get("populated") == 1

    def _taken(self) -> RuntimeFailure:
        return RuntimeFailure(f"start unit `{self.unit}`: there is a unit of that name", step="cgroups")


def _attempts() -> Iterator[None]:
    """Moments at which a name may have become free, as long as systemd may need for it."""
    deadline, pause = time.monotonic() + _FORGOTTEN_S, 0.001
    yield
    while time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
        yield


def _needs_more(resources: OciResources) -> bool:
    """Whether there are limits of controllers that systemd does not know, and so does not enable."""
    names = resources.get("unified") or {}
    unknown = any(name.startswith(("hugetlb.", "rdma.", "misc.")) for name in names)
    return unknown or bool(resources.get("hugepageLimits") or resources.get("rdma"))


def _host_pid() -> int:
    """This process as systemd sees it: by the procfs of the host, whatever pid namespace this process is in."""
    return int(os.readlink("/proc/self"))
