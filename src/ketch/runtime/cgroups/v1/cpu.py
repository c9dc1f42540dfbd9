"""cpu controller, v1: shares and CFS bandwidth."""

from __future__ import annotations

from errno import EINVAL

from ketch.runtime.cgroups import files, refusals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cgroups.readings import CgroupReading
    from ketch.runtime.oci_types import OciResources


def apply(directory: str, resources: OciResources) -> None:
    """Set shares, period and quota (microseconds; quota -1 is unlimited)."""
    cpu = resources.get("cpu") or {}
    if cpu.get("shares"):
        files.write(directory, "cpu.shares", cpu["shares"])
    _set_bandwidth(directory, cpu.get("quota") or 0, cpu.get("period") or 0)
    if cpu.get("burst") is not None:
        refusals.need(directory, "cpu.cfs_burst_us", "cpu.burst")
        files.write(directory, "cpu.cfs_burst_us", cpu["burst"])
    if cpu.get("realtimePeriod"):
        refusals.need(directory, "cpu.rt_period_us", "cpu.realtimePeriod")
        files.write(directory, "cpu.rt_period_us", cpu["realtimePeriod"])
    if cpu.get("realtimeRuntime"):
        refusals.need(directory, "cpu.rt_runtime_us", "cpu.realtimeRuntime")
        files.write(directory, "cpu.rt_runtime_us", cpu["realtimeRuntime"])
    if cpu.get("idle") is not None:
        refusals.need(directory, "cpu.idle", "cpu.idle")
        files.write(directory, "cpu.idle", cpu["idle"])


def _set_bandwidth(directory: str, quota: int, period: int) -> None:
    """Set what is not 0 of the two.

    After each the kernel compares their quotient with that of the parent cgroup, so the new period may be possible
    only once the new quota is there.
    """
    late = 0
    if period:
        try:
            files.write(directory, "cpu.cfs_period_us", period)
        except OSError as e:
            if e.errno != EINVAL or not quota:
                raise
            late = period
    if quota:
        files.write(directory, "cpu.cfs_quota_us", quota)
    if late:
        files.write(directory, "cpu.cfs_period_us", late)


def stats(directory: str, out: CgroupReading) -> None:
    """Add the throttling counters to ``out["cpu"]``."""
    values = files.pairs(files.read_or(directory, "cpu.stat"))
    cpu = out.setdefault("cpu", {})
    cpu["periods"] = values.get("nr_periods", 0)
    cpu["throttled_periods"] = values.get("nr_throttled", 0)
    cpu["throttled_ns"] = values.get("throttled_time", 0)
