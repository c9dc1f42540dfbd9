"""Resource usage of containers: all counters of one, and the few of a stream of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from ketch.runtime.cgroups.readings import CgroupReading


class Sample(msgspec.Struct, frozen=True):
    """Everything that is counted for a container that runs, and what of the machine it is compared with.

    ``taken_at`` in ns since 1970; ``networks``: interface → counter → value; ``system_cpu_ns``: of all processors,
    since boot; ``machine_memory`` in bytes.
    """

    cgroup: CgroupReading
    networks: dict[str, dict[str, int]]
    taken_at: int
    system_cpu_ns: int
    online_cpus: int
    machine_memory: int


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
