"""cpu controller, v2: weight and bandwidth; times come from ``cpu.stat``, which every cgroup has."""

from __future__ import annotations

from ketch.runtime.cgroups import files, refusals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cgroups.readings import CgroupReading
    from ketch.runtime.oci_types import OciResources


DEFAULT_PERIOD_US = 100000


def apply(directory: str, resources: OciResources) -> None:
    """Set weight (from OCI shares) and ``cpu.max`` (microseconds; quota -1 is unlimited).

    Of quota and period, one that is not given stays.
    """
    cpu = resources.get("cpu") or {}
    if cpu.get("shares"):
        files.write(directory, "cpu.weight", weight(cpu["shares"]))
    quota, period = cpu.get("quota"), cpu.get("period")
    if quota or period:
        before = files.read_or(directory, "cpu.max", f"max {DEFAULT_PERIOD_US}").split()
        wanted = (before[0] if not quota else str(quota) if quota > 0 else "max", str(period or before[1]))
        files.write(directory, "cpu.max", " ".join(wanted))
    if cpu.get("burst") is not None:
        refusals.need(directory, "cpu.max.burst", "cpu.burst")
        files.write(directory, "cpu.max.burst", cpu["burst"])
    if cpu.get("idle") is not None:
        refusals.need(directory, "cpu.idle", "cpu.idle")
        files.write(directory, "cpu.idle", cpu["idle"])


def weight(shares: int) -> int:
    """cpu.weight (1…10000) for v1 shares (2…262144): the linear map that runc and systemd use."""
    shares = min(max(shares, 2), 262144)
    return 1 + (shares - 2) * 9999 // 262142


def stats(directory: str, out: CgroupReading) -> None:
    """Fill ``out["cpu"]``; nanoseconds and counts.  v2 has no times by CPU."""
    values = files.pairs(files.read_or(directory, "cpu.stat"))
    out["cpu"] = {
        "total_ns": values.get("usage_usec", 0) * 1000,
        "user_ns": values.get("user_usec", 0) * 1000,
        "system_ns": values.get("system_usec", 0) * 1000,
        "percpu_ns": [],
        "periods": values.get("nr_periods", 0),
        "throttled_periods": values.get("nr_throttled", 0),
        "throttled_ns": values.get("throttled_usec", 0) * 1000,
    }
