"""Metrics of ketchd's own process, by the names that all of Prometheus' clients give them (proc(5))."""

from __future__ import annotations

import os
import resource

from ketch.notation.metrics.exposition import Family, Point

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def families() -> list[Family]:
    """The counts that the kernel has of this process."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as f:
        fields = f.read().rpartition(")")[2].split()  # from the third on: a name may have spaces
    user, system, started, virtual, pages = (int(fields[number]) for number in (11, 12, 19, 20, 21))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [
        _family("cpu_seconds_total", "counter", "CPU time of ketchd.", (user + system) / _TICKS),
        _family("resident_memory_bytes", "gauge", "Memory of ketchd.", pages * _PAGE),
        _family("virtual_memory_bytes", "gauge", "Address space of ketchd.", virtual),
        _family("open_fds", "gauge", "Open files of ketchd.", len(os.listdir("/proc/self/fd")) - 1),
        _family("max_fds", "gauge", "Limit of open files.", soft),
        _family("start_time_seconds", "gauge", "Start of ketchd, in seconds since 1970.", _boot() + started / _TICKS),
    ]


def _family(name: str, kind: str, text: str, value: float) -> Family:
    return Family(f"process_{name}", kind, text, [Point({}, value)])


def _boot() -> int:
    """The start of the machine, in seconds since 1970."""
    with open("/proc/stat", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("btime "))
