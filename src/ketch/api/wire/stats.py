"""Counters in Docker's JSON, from the engine's samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.notation import times
from ketch.runtime.cgroups import common

if TYPE_CHECKING:
    from ketch.engine.model.records import Container
    from ketch.engine.model.usage import Sample
    from ketch.notation.api_objects import ApiObject
    from ketch.runtime.cgroups.readings import CgroupReading


_UNLIMITED = 1 << 62


def empty(container: Container) -> ApiObject:
    """The reading of a container that does not run."""
    return {
        "name": f"/{container.name}",
        "id": container.id,
        "read": times.NEVER,
        "preread": times.NEVER,
        "num_procs": 0,
        "pids_stats": {},
        "storage_stats": {},
        "memory_stats": {},
        "blkio_stats": _blkio(None),
        "cpu_stats": _cpu(None),
        "precpu_stats": _cpu(None),
    }


def answer(container: Container, current: Sample, previous: Sample | None, *, one_shot: bool = False) -> ApiObject:
    """One object of ``GET /containers/{id}/stats``; ``precpu_stats`` come from the sample before.

    What the machine has no controller for is empty, as in Docker's answers, which have no name when they are
    ``one_shot``.
    """
    named = {} if one_shot else {"name": f"/{container.name}", "id": container.id}
    return {
        **named,
        "read": times.rfc3339_or_never(current.taken_at),
        "preread": times.rfc3339_or_never(previous.taken_at) if previous else times.NEVER,
        "num_procs": 0,
        "pids_stats": _pids(current.cgroup),
        "storage_stats": {},
        "memory_stats": _memory(current),
        "blkio_stats": _blkio(current.cgroup),
        "cpu_stats": _cpu(current),
        "precpu_stats": _cpu(previous),
        "networks": {name: _network(counters) for name, counters in current.networks.items()},
    }


def _pids(reading: CgroupReading) -> ApiObject:
    pids = reading.get("pids")
    if not pids:
        return {}
    return {"current": pids["current"], **({"limit": pids["limit"]} if pids["limit"] else {})}


def _memory(sample: Sample) -> ApiObject:
    memory = sample.cgroup.get("memory")
    if memory is None:
        return {}
    limit = memory["limit"]
    return {
        "usage": memory["usage"],
        "max_usage": memory["max_usage"],
        "stats": memory["stat"],
        **({"failcnt": memory["failcnt"]} if memory["failcnt"] else {}),
        "limit": sample.machine_memory if not limit or limit > _UNLIMITED else limit,
    }


def _cpu(sample: Sample | None) -> ApiObject:
    cpu = sample.cgroup.get("cpu", {}) if sample else {}
    usage: ApiObject = {
        "total_usage": cpu.get("total_ns", 0),
        "usage_in_kernelmode": cpu.get("system_ns", 0),
        "usage_in_usermode": cpu.get("user_ns", 0),
    }
    if cpu.get("percpu_ns"):
        usage["percpu_usage"] = cpu["percpu_ns"]
    machine = {"system_cpu_usage": sample.system_cpu_ns, "online_cpus": sample.online_cpus} if sample else {}
    return {
        "cpu_usage": usage,
        **machine,
        "throttling_data": {
            "periods": cpu.get("periods", 0),
            "throttled_periods": cpu.get("throttled_periods", 0),
            "throttled_time": cpu.get("throttled_ns", 0),
        },
    }


def _blkio(reading: CgroupReading | None) -> ApiObject:
    """The counters of block devices: lists with cgroup v1; with v2 all but the first are null, as for a stopped one."""
    names = ("io_serviced", "io_queue", "io_service_time", "io_wait_time", "io_merged", "io_time", "sectors")
    nothing: list[ApiObject] | None = [] if reading is not None and common.layout().version == 1 else None
    return {
        "io_service_bytes_recursive": None if reading is None else reading.get("blkio", []),
        **{f"{name}_recursive": nothing for name in names},
    }


def _network(counters: dict[str, int]) -> dict[str, int]:
    names = ("bytes", "packets", "errors", "dropped")
    return {f"{way}_{name}": counters.get(f"{way}_{name}", 0) for way in ("rx", "tx") for name in names}
