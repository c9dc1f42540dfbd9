"""What many containers use, sampled in one pass: for a stream that shows them all.

A pass asks the kernel once for the counters of all interfaces and reads each container's cgroup as `gauge` does;
a hundred containers take about 10 ms, in threads, so that nobody waits for it.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import msgspec

from ketch.engine.stats import samples
from ketch.runtime.cgroups import gauge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.model.records import Container
    from ketch.engine.parts import Context

    Counters = dict[str, dict[str, int]]

_MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Usage(msgspec.Struct, kw_only=True):
    """One container in one line of ``GET /ketch/stats``; all zeros when it does not run.

    ``cpu_percent`` is of one CPU, since the line before; None as long as there is nothing to compare with.
    ``memory_bytes`` leaves out the page cache that the kernel can take back.  A limit of 0 processes is none.
    """

    id: str
    name: str
    status: str
    cpu_percent: float | None = 0.0
    cpu_ns: int = 0
    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    pids: int = 0
    pids_limit: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    networks: dict[str, dict[str, int]] = {}


class Sampler:
    """One stream's passes; it remembers the one before, which says how much CPU time has gone since."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._before: dict[str, tuple[int, int]] = {}  # id → (moment, CPU time), both in ns

    async def sample(self, containers: Sequence[Container]) -> list[Usage]:
        """The usage of each, in the same order."""
        owners = {c.id: samples.network_owner(self._ctx, c) for c in containers if c.state.running}
        pids = {owner.id: owner.state.pid for owner in owners.values() if owner is not None}
        counters: dict[str, Counters] = {}
        if pids:
            counters = await self._ctx.network_thread.run(self._ctx.network.counters, pids)
        networks = {i: counters.get(owner.id, {}) if owner is not None else {} for i, owner in owners.items()}
        return await asyncio.to_thread(self._read_all, containers, networks)

    def _read_all(self, containers: Sequence[Container], networks: dict[str, Counters]) -> list[Usage]:
        before, self._before = self._before, {}
        result = []
        for container in containers:
            usage = Usage(id=container.id, name=container.name, status=container.state.status)
            reading = gauge.read(self._ctx.cgroups.path(container)) if container.id in networks else None
            if reading is not None:
                now = (time.monotonic_ns(), reading.cpu_ns)
                self._before[container.id] = now
                _fill(usage, container, reading, percent(before.get(container.id), now))
                usage.networks = networks[container.id]
            result.append(usage)
        return result


def _fill(usage: Usage, container: Container, reading: gauge.Reading, cpu_percent: float | None) -> None:
    usage.cpu_percent, usage.cpu_ns = cpu_percent, reading.cpu_ns
    usage.memory_bytes = reading.memory
    usage.memory_limit_bytes = container.host.memory or _MEMORY
    usage.pids, usage.pids_limit = reading.pids, max(container.host.pids_limit or 0, 0)
    usage.read_bytes, usage.written_bytes = reading.read_bytes, reading.written_bytes


def percent(before: tuple[int, int] | None, now: tuple[int, int]) -> float | None:
    """CPU time over time between two (moment, CPU time); None when there is no earlier one, or it was another run."""
    if before is None or now[1] < before[1] or now[0] <= before[0]:
        return None
    return round(100 * (now[1] - before[1]) / (now[0] - before[0]), 2)
