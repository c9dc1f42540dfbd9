"""A container's cgroup as a scope of systemd, on the unified hierarchy.

A scope lives as long as a process is in it: it is made with the first one, and systemd removes it after the last.
Nobody else may remove its directory: systemd, which watches a file in it, would not hear of its end, and keep the unit.
So it is waited for, and asked only if it is late.  What speaks to it is imported where that happens.
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
    from ketch.runtime.cgroups.systemd.bus import Bus
    from ketch.runtime.oci_types import OciResources
    from ketch.runtime.protocol import Cgroups

_UNKNOWN = "org.freedesktop.systemd1.NoSuchUnit"
_EXISTS = "org.freedesktop.systemd1.UnitExists"
_REMOVED_S = 0.5  # how long it may take to remove the cgroup of one until it is asked
_FORGOTTEN_S = 5.0  # how long systemd may take to forget a scope that has ended
_RULE = (
    "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',"
    "interface='org.freedesktop.systemd1.Manager',member='JobRemoved',arg2='{unit}'"
)


class SystemdCgroup(CgroupV2):
    """``directory``: the cgroup's; ``unit``: the scope; ``parent``: its slice (only `make` needs that)."""

    def __init__(self, directory: str, root: str, unit: str, parent: str = "") -> None:
        super().__init__(directory, root)
        self.unit = unit
        self._parent = parent
        self._ours = False

    @classmethod
    def at(cls, cgroups_path: str, root: str) -> SystemdCgroup:
        """The cgroup of ``slice:prefix:name``."""
        from ketch.runtime.cgroups.systemd import units

        place = units.parse(cgroups_path)
        return cls(root + place.path, root, place.unit, place.slice)

    def describe(self) -> Cgroups:
        """The arguments of `common.open` in another process."""
        return {"version": 2, "dir": self.directory, "unit": self.unit}

    def make(self, resources: OciResources | None = None) -> None:
        """Start the scope with its limits; the calling process is in it afterwards.

        RuntimeFailure: systemd refused, or there is a scope of that name with processes in it.
        """
        from ketch.runtime.cgroups.systemd.bus import Bus

        self._ours = True  # from now on there is nothing that somebody would have to remove
        bus = Bus()
        try:
            bus.watch(_RULE.format(unit=self.unit))
            self._start(bus, resources or {})
            while (job := bus.signal("JobRemoved"))[2] != self.unit:
                continue
        finally:
            bus.close()
        if job[3] != "done":
            raise self._failure("start", f"its job ended as `{job[3]}`")
        self.enable_controllers()
        if resources:
            super().update(resources)

    def join(self) -> None:
        """Move the calling process in, if it is not the one that made it."""
        if not self._ours:
            super().join()

    def update(self, resources: OciResources) -> None:
        """Apply OCI ``linux.resources``; only what is given changes."""
        from ketch.runtime.cgroups.systemd import properties
        from ketch.runtime.cgroups.systemd.bus import Bus, BusError

        changed = properties.of_limits(resources)
        if changed:
            bus = Bus()
            try:
                bus.call("SetUnitProperties", "sba(sv)", [self.unit, True, changed])
            except BusError as e:
                raise self._failure("set limits of", e.message) from e
            finally:
                bus.close()
        super().update(resources)

    def remove(self) -> None:
        """Wait until systemd has removed the cgroup; one that holds the caller goes with it.

        A scope that systemd keeps although nothing is in it is stopped.
        """
        if self._ours or self._wait_for_end(_REMOVED_S):
            return
        if self._has_processes():
            raise OSError(EBUSY, os.strerror(EBUSY), self.directory)
        from ketch.runtime.cgroups.systemd.bus import Bus, BusError

        bus = Bus()
        try:
            bus.call("StopUnit", "ss", [self.unit, "replace"])
        except BusError as e:
            if e.name != _UNKNOWN:
                raise self._failure("stop", e.message) from e
        finally:
            bus.close()
        if not self._wait_for_end(_REMOVED_S):
            tree.remove(self.directory)

    def _wait_for_end(self, timeout_s: float) -> bool:
        deadline, pause = time.monotonic() + timeout_s, 0.0002
        while os.path.exists(self.directory):
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        return True

    def _start(self, bus: Bus, resources: OciResources) -> None:
        """Have systemd start the scope; one of that name that has just ended is waited for."""
        from ketch.runtime.cgroups.systemd import properties
        from ketch.runtime.cgroups.systemd.bus import BusError

        wanted = properties.of_new_scope(f"Ketch container {self.unit}", self._parent, _host_pid(), resources)
        deadline, pause = time.monotonic() + _FORGOTTEN_S, 0.001
        while True:
            try:
                bus.call("StartTransientUnit", "ssa(sv)a(sa(sv))", [self.unit, "fail", wanted, []])
                return
            except BusError as e:
                if e.name != _EXISTS or self._has_processes() or time.monotonic() > deadline:
                    raise self._failure("start", e.message) from e
            time.sleep(pause)
            pause = min(pause * 2, 0.1)

    def _has_processes(self) -> bool:
        return files.pairs(files.read_or(self.directory, "cgroup.events")).get("populated") == 1

    def _failure(self, verb: str, reason: str) -> RuntimeFailure:
        return RuntimeFailure(f"{verb} unit `{self.unit}`: {reason}", step="cgroups")


def _host_pid() -> int:
    """This process as systemd sees it: by the procfs of the host, whatever pid namespace this process is in."""
    return int(os.readlink("/proc/self"))
