"""cpuacct controller, v1: time used, in nanoseconds."""

from __future__ import annotations

from ketch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cgroups.readings import CgroupReading


def stats(directory: str, out: CgroupReading) -> None:
    """Add the times to ``out["cpu"]``."""
    read = files.read_or
    cpu = out.setdefault("cpu", {})
    cpu["total_ns"] = files.number(read(directory, "cpuacct.usage"))
    cpu["user_ns"] = files.number(read(directory, "cpuacct.usage_user"))
    cpu["system_ns"] = files.number(read(directory, "cpuacct.usage_sys"))
    cpu["percpu_ns"] = [int(value) for value in read(directory, "cpuacct.usage_percpu").split()]
