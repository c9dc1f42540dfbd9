"""Resource usage of many containers, sampled in one pass.

A pass asks the kernel once for the counters of all interfaces and reads each container's cgroup as `gauge` does;
a hundred containers take about 10 ms, in threads, so that nobody waits for it.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from ketch.engine.model.usage import Usage
from ketch.engine.stats import processes
from ketch.runtime.cgroups import common, gauge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.model.records import Container
    from ketch.engine.stats.samples import Samples

    Counters = dict[str, dict[str, int]]

_MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Sampler:
    """A sampler for one stream; it keeps the previous sample, for CPU time over an interval."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._before: dict[str, tuple[int, int]] = {}  # id → (moment, CPU time), both in ns

    async def sample(self, containers: Sequence[Container]) -> list[Usage]:
        """The usage of each, in the same order."""
        owners = {c.id: self._samples.network_owner(c) for c in containers if c.state.running}
        pids = {owner.id: owner.state.pid for owner in owners.values() if owner is not None}
        counters: dict[str, Counters] = {}
        if pids:
            counters = await self._samples.counters(pids)
        networks = {i: counters.get(owner.id, {}) if owner is not None else {} for i, owner in owners.items()}
        return await asyncio.to_thread(self._read_all, containers, networks)

    def _read_all(self, containers: Sequence[Container], networks: dict[str, Counters]) -> list[Usage]:
        before, self._before = self._before, {}
        result = []
        beside: dict[int, list[int]] = {}
        if common.layout().forbidden:
            beside = processes.beside(c.state.pid for c in containers if c.state.running)
        for container in containers:
            usage = Usage(id=container.id, name=container.name, status=container.state.status)
            reading = self._read(container, beside) if container.id in networks else None
            if reading is not None:
                now = (time.monotonic_ns(), reading.cpu_ns)
                self._before[container.id] = now
                _fill(usage, container, reading, percent(before.get(container.id), now))
                usage.networks = networks[container.id]
            result.append(usage)
        return result

    def _read(self, container: Container, beside: dict[int, list[int]]) -> gauge.Reading | None:
        """The counters of the container's cgroup, and of its processes where that has none."""
        path = self._samples.cgroups.path(container)
        reading = gauge.read(path)
        if not processes.are_to_be_counted() or (reading is not None and reading.memory):
            return reading
        pids = beside.get(container.state.pid) or common.at(path).pids()
        counted = processes.count(pids)
        if reading is None:
            if not pids:
                return None
            reading = gauge.Reading(counted.user_ns + counted.system_ns, 0, 0, (0, 0))
        reading.memory = counted.memory
        reading.pids = reading.pids or counted.tasks
        if not (reading.read_bytes or reading.written_bytes):
            reading.read_bytes, reading.written_bytes = counted.read_bytes, counted.written_bytes
        return reading


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
