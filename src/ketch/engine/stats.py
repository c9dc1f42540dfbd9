"""A container's counters: cgroup and interface readings, raw; the API turns them into Docker's JSON."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from ketch.errors import Conflict
from ketch.runtime.cgroups import common

if TYPE_CHECKING:
    from ketch.engine.context import Context
    from ketch.engine.model import Container

_MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def cgroups_of(ctx: Context, container: Container) -> Any:
    """The container's cgroup, whatever the machine's hierarchy."""
    return common.at(ctx.cgroup_path(container))


async def sample(ctx: Context, container: Container) -> dict[str, Any]:
    """cgroup ``stats()`` plus ``networks``, ``read`` (ns), ``system_cpu_ns`` and ``online_cpus``.

    Conflict when the container does not run.
    """
    if not container.state.running:
        raise Conflict(f"container {container.id} is not running")
    reading: dict[str, Any] = cgroups_of(ctx, container).stats()
    networks = await ctx.in_network(ctx.network.stats, container.id)
    reading.update(
        networks=networks,
        read=time.time_ns(),
        system_cpu_ns=system_cpu_ns(),
        online_cpus=os.cpu_count() or 1,
        machine_memory=_MEMORY,
    )
    return reading


def system_cpu_ns() -> int:
    """CPU time of the whole machine since boot, all states, in ns (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as f:
        fields = f.readline().split()
    return sum(int(v) for v in fields[1:8]) * 1_000_000_000 // _TICKS
