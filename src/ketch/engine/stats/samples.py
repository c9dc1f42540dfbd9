"""A container's counters: cgroup and interface readings; the API turns them into Docker's JSON."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.model.usage import Sample
from ketch.engine.stats import processes
from ketch.errors import Conflict, KetchError

if TYPE_CHECKING:
    from ketch.engine.aio.serial_thread import SerialThread
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.network.manager import NetworkManager
    from ketch.runtime.cgroups.readings import CgroupReading

_MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class Samples(Struct, frozen=True, eq=False):
    """Samples of running containers' counters."""

    store: ContainerStore
    cgroups: ContainerCgroups
    network: NetworkManager
    network_thread: SerialThread

    async def sample(self, container: Container) -> Sample:
        """Read everything; Conflict when the container does not run."""
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")
        reading = self.cgroups.of(container).stats()
        if processes.are_to_be_counted():
            await asyncio.to_thread(self._complete, container, reading)
        owner = self.network_owner(container)
        counters = await self.counters({owner.id: owner.state.pid}) if owner is not None else {}
        return Sample(
            cgroup=reading,
            networks=counters.get(owner.id, {}) if owner is not None else {},
            taken_at=time.time_ns(),
            system_cpu_ns=system_cpu_ns(),
            online_cpus=os.cpu_count() or 1,
            machine_memory=_MEMORY,
        )

    def _complete(self, container: Container, reading: CgroupReading) -> None:
        found = processes.of(self.cgroups.of(container), container.state.pid)
        processes.complete(reading, processes.count(found))

    async def counters(self, pids: dict[str, int]) -> dict[str, dict[str, dict[str, int]]]:
        """Counters of the interfaces in the namespaces of processes (container id → pid): id → interface → counter."""
        return await self.network_thread.run(self.network.counters, pids)

    def network_owner(self, container: Container) -> Container | None:
        """The container whose interfaces it uses: itself, or another (``--network container:…``); None: the host."""
        seen: set[str] = set()
        while (owner := container.host.network.container) is not None and container.id not in seen:
            seen.add(container.id)
            try:
                container = self.store.get(owner)
            except KetchError:  # it was removed, and its interfaces went with it
                return None
        return None if container.host.network.is_host else container


def system_cpu_ns() -> int:
    """CPU time of the whole machine since boot, all states, in ns (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as f:
        fields = f.readline().split()
    return sum(int(v) for v in fields[1:8]) * 1_000_000_000 // _TICKS
