"""Counters in Docker's JSON, from the engine's raw readings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ketch.notation import times

if TYPE_CHECKING:
    from ketch.engine.model.records import Container

_UNLIMITED = 1 << 62


def empty(container: Container) -> dict[str, Any]:
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
        "blkio_stats": _blkio({}),
        "cpu_stats": _cpu(None),
        "precpu_stats": _cpu(None),
    }


def answer(container: Container, current: dict[str, Any], previous: dict[str, Any] | None) -> dict[str, Any]:
    """One object of ``GET /containers/{id}/stats``; ``precpu_stats`` come from the reading before."""
    memory, pids = current["memory"], current["pids"]
    limit = memory.get("limit") or 0
    pid_limit = pids.get("limit")
    return {
        "name": f"/{container.name}",
        "id": container.id,
        "read": times.rfc3339_or_never(current["read"]),
        "preread": times.rfc3339_or_never(previous["read"]) if previous else times.NEVER,
        "num_procs": 0,
        "pids_stats": {"current": pids["current"], "limit": pid_limit or 18446744073709551615},
        "storage_stats": {},
        "memory_stats": {
            "usage": memory["usage"],
            "max_usage": memory.get("max_usage", 0),
            "stats": memory.get("stat", {}),
            "failcnt": memory.get("failcnt", 0),
            "limit": current["machine_memory"] if not limit or limit > _UNLIMITED else limit,
        },
        "blkio_stats": _blkio(current),
        "cpu_stats": _cpu(current),
        "precpu_stats": _cpu(previous),
        "networks": {name: _network(counters) for name, counters in current["networks"].items()},
    }


def _cpu(reading: dict[str, Any] | None) -> dict[str, Any]:
    if reading is None:
        usage: dict[str, Any] = {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}
        return {"cpu_usage": usage, "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0}}
    cpu = reading["cpu"]
    usage = {
        "total_usage": cpu["total_ns"],
        "usage_in_kernelmode": cpu.get("system_ns", 0),
        "usage_in_usermode": cpu.get("user_ns", 0),
    }
    if cpu.get("percpu_ns"):
        usage["percpu_usage"] = cpu["percpu_ns"]
    return {
        "cpu_usage": usage,
        "system_cpu_usage": reading["system_cpu_ns"],
        "online_cpus": reading["online_cpus"],
        "throttling_data": {
            "periods": cpu.get("periods", 0),
            "throttled_periods": cpu.get("throttled_periods", 0),
            "throttled_time": cpu.get("throttled_ns", 0),
        },
    }


def _blkio(reading: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {"major": r["major"], "minor": r["minor"], "op": r["op"], "value": r["value"]} for r in reading.get("blkio", ())
    ]
    names = ("io_serviced", "io_queue", "io_service_time", "io_wait_time", "io_merged", "io_time", "sectors")
    return {
        "io_service_bytes_recursive": rows if reading else None,
        **{f"{n}_recursive": None for n in names[:-2]},
        "io_time_recursive": None,
        "sectors_recursive": None,
    }


def _network(counters: dict[str, int]) -> dict[str, int]:
    names = ("bytes", "packets", "errors", "dropped")
    return {f"{way}_{name}": counters.get(f"{way}_{name}", 0) for way in ("rx", "tx") for name in names}
