"""Counters of a cgroup, as `Cgroup.stats` gives them: types alone, which nothing imports when it runs.

Bytes, nanoseconds and counts.  A machine need not have every controller, so every member of `CgroupReading` may be
missing; on v1 the times and the throttling of ``cpu`` come from two controllers, so each of its members may as well.
"""

from __future__ import annotations

from typing import TypedDict


class MemoryReading(TypedDict):
    """``limit``: 2**64-1 or about 2**63 for none; ``failcnt``: how often it was reached; ``stat``: ``memory.stat``."""

    usage: int
    max_usage: int
    limit: int
    failcnt: int
    stat: dict[str, int]


class CpuReading(TypedDict, total=False):
    """Time used since the cgroup was made, and how often its bandwidth held it back."""

    total_ns: int
    user_ns: int
    system_ns: int
    percpu_ns: list[int]
    periods: int
    throttled_periods: int
    throttled_ns: int


class PidsReading(TypedDict):
    """Tasks; a limit of 0 is none."""

    current: int
    limit: int


class BlkioReading(TypedDict):
    """Bytes of one operation (``Read``, ``Write`` …) on one block device."""

    major: int
    minor: int
    op: str
    value: int


class CgroupReading(TypedDict, total=False):
    """One reading, by controller."""

    memory: MemoryReading
    cpu: CpuReading
    pids: PidsReading
    blkio: list[BlkioReading]
