"""``stats``: what containers use, redrawn every second or printed once."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from ketch.cli.flags import FlagSet
from ketch.cli.listing import show
from ketch.cli.units import human_bytes, human_size
from ketch.errors import KetchError

if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.context import Context

_COLUMNS = [
    ("CONTAINER ID", "ID"), ("NAME", "Name"), ("CPU %", "CPUPerc"), ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"), ("NET I/O", "NetIO"), ("BLOCK I/O", "BlockIO"), ("PIDS", "PIDs"),
]  # fmt: skip


def cmd_stats(args: list[str], ctx: Context) -> int:
    """A live table of resource usage."""
    spec = FlagSet(
        "stats", "ketch stats [OPTIONS] [CONTAINER...]", "Display a live stream of resource usage statistics"
    )
    spec.bool("all", "a", "also those that do not run").string("format", "", "how")
    spec.bool("no-stream", "", "only the first result").bool("no-trunc", "", "whole ids")
    opts, rest = spec.parse(args)
    while True:
        refs = rest or _all(ctx, everything=opts["all"])
        readings = _read(ctx, refs)
        for ref, reading in zip(refs, readings, strict=True):
            if isinstance(reading, KetchError) and ref in rest:
                raise reading
        rows = [row(r, whole=opts["no-trunc"]) for r in readings if not isinstance(r, KetchError)]
        if not opts["no-stream"] and sys.stdout.isatty():
            ctx.out.write("\033[H\033[J")
        show(ctx, rows, columns=_COLUMNS, headers={"Container": "CONTAINER"}, form=opts["format"])
        ctx.out.flush()
        if opts["no-stream"]:
            return 0
        time.sleep(0.5)


def _all(ctx: Context, *, everything: bool) -> list[str]:
    return [c["Id"] for c in ctx.client().request("GET", "/containers/json", {"all": everything}).json()]


def _read(ctx: Context, refs: list[str]) -> list[Any]:
    """One reading of each container, all at the same time (each takes a second)."""
    from ketch.client.http import Client

    results: list[Any] = [None] * len(refs)

    def one(index: int) -> None:
        try:
            client = Client(ctx.host)
            results[index] = client.request("GET", f"/containers/{refs[index]}/stats", {"stream": False}).json()
        except KetchError as e:
            results[index] = e

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(refs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def row(reading: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    """A reading in the fields of Docker's ``--format``."""
    memory = reading.get("memory_stats") or {}
    used, limit = memory_used(memory), memory.get("limit") or 0
    networks = (reading.get("networks") or {}).values()
    received, sent = sum(n["rx_bytes"] for n in networks), sum(n["tx_bytes"] for n in networks)
    read, written = _blocks(reading)
    container = reading["id"] if whole else reading["id"][:12]
    return {
        "BlockIO": f"{human_size(read)} / {human_size(written)}",
        "CPUPerc": f"{cpu_percent(reading):.2f}%",
        "Container": container,
        "ID": container,
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "MemUsage": f"{human_bytes(used)} / {human_bytes(limit)}",
        "Name": reading["name"].lstrip("/"),
        "NetIO": f"{human_size(received)} / {human_size(sent)}",
        "PIDs": str((reading.get("pids_stats") or {}).get("current", 0)),
    }


def memory_used(memory: dict[str, Any]) -> int:
    """Usage without the page cache that the kernel can take back, as Docker counts it."""
    usage, stats = memory.get("usage", 0), memory.get("stats") or {}
    for key in ("total_inactive_file", "inactive_file"):
        if 0 < stats.get(key, 0) < usage:
            return int(usage - stats[key])
    return int(usage)


def cpu_percent(reading: dict[str, Any]) -> float:
    """Share of one CPU between the two samples of a reading, in percent."""
    now, before = reading.get("cpu_stats") or {}, reading.get("precpu_stats") or {}
    used = now.get("cpu_usage", {}).get("total_usage", 0) - before.get("cpu_usage", {}).get("total_usage", 0)
    machine = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if used <= 0 or machine <= 0:
        return 0.0
    return float(100.0 * used / machine * (now.get("online_cpus") or 1))


def _blocks(reading: dict[str, Any]) -> tuple[int, int]:
    totals = {"read": 0, "write": 0}
    for entry in (reading.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ():
        if entry["op"].lower() in totals:
            totals[entry["op"].lower()] += entry["value"]
    return totals["read"], totals["write"]
