"""Readings of a container's counters, and want of memory as it happens: ``events`` of the OCI command line.

One JSON object a line, in runc's form; what this machine has no controller for is missing or 0.
"""

from __future__ import annotations

import os
import select
import time

from ketch import pidfd, stdio
from ketch.errors import Conflict, InvalidArgument
from ketch.notation import documents, durations
from ketch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cgroups.common import Cgroup
    from ketch.runtime.cgroups.readings import MemoryReading
    from ketch.runtime.oci_cli.arguments import GivenOptions
    from ketch.runtime.oci_cli.state import RuntimeState

    Json = dict[str, object]

_DEFAULT_NS = 5 * 10**9
_MEMORY = (("limit", "limit"), ("usage", "usage"), ("max", "max_usage"), ("failcnt", "failcnt"))


def report(state: RuntimeState, options: GivenOptions) -> None:
    """Print one reading (``--stats``), or readings and events until the container ends."""
    interval = durations.parse(options.text("interval")) if options.given("interval") else _DEFAULT_NS
    if interval is None or interval <= 0:
        raise InvalidArgument(f"option `--interval`: `{options.text('interval')}` is no duration greater than 0")
    cgroup = state.cgroup()
    if state.status() in ("creating", "stopped") or cgroup is None:
        raise Conflict(f"watch container `{state.id}`: container not running")
    if options.flag("stats"):
        _print({"type": "stats", "id": state.id, "data": reading(cgroup)})
        return
    try:
        process_fd = pidfd.open_process(state.pid)
    except ProcessLookupError:
        return
    try:
        _watch(state.id, cgroup, process_fd, interval / 10**9)
    finally:
        os.close(process_fd)


def _watch(container_id: str, cgroup: Cgroup, process_fd: int, interval_s: float) -> None:
    memory = _MemoryWatch(cgroup)
    poll = select.poll()
    poll.register(process_fd, select.POLLIN)
    if memory.fd >= 0:
        poll.register(memory.fd, select.POLLIN if cgroup.version == 1 else select.POLLPRI)
    try:
        due = time.monotonic() + interval_s
        while True:
            ready = [fd for fd, _ in poll.poll(max(due - time.monotonic(), 0) * 1000)]
            if memory.fd in ready and memory.ran_out():
                _print({"type": "oom", "id": container_id})
            if process_fd in ready:
                return
            if time.monotonic() >= due:
                _print({"type": "stats", "id": container_id, "data": reading(cgroup)})
                due += interval_s
    finally:
        memory.close()


class _MemoryWatch:
    """The kernel's announcements that memory has run out (see `process.oom`); ``fd`` -1: it makes none."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._cgroup = cgroup
        self.fd = cgroup.watch_oom()
        self._kills = cgroup.oom_kills()

    def ran_out(self) -> bool:
        """Take an announcement; on v2 it may be about another counter of the same file."""
        if self._cgroup.version == 1:
            os.eventfd_read(self.fd)
            return True
        try:
            files.read_again(self.fd)
        except FileNotFoundError:
            return False  # with the process, which ends the caller
        before, self._kills = self._kills, self._cgroup.oom_kills()
        return self._kills > before

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def reading(cgroup: Cgroup) -> Json:
    """All counters of a cgroup, named as runc names them; bytes, nanoseconds and counts."""
    raw = cgroup.stats()
    cpu, memory, pids = raw.get("cpu") or {}, raw.get("memory"), raw.get("pids")
    described = cgroup.describe()
    unified = described["dir"] if described["version"] == 2 else ""
    return {
        "cpu": {
            "usage": {
                "total": cpu.get("total_ns", 0),
                "percpu": cpu.get("percpu_ns", []),
                "kernel": cpu.get("system_ns", 0),
                "user": cpu.get("user_ns", 0),
            },
            "throttling": {
                "periods": cpu.get("periods", 0),
                "throttledPeriods": cpu.get("throttled_periods", 0),
                "throttledTime": cpu.get("throttled_ns", 0),
            },
            **_pressure(unified, "cpu.pressure"),
        },
        "memory": {**(_memory(memory) if memory else {}), **_pressure(unified, "memory.pressure")},
        "pids": {"current": pids["current"], "limit": pids["limit"]} if pids else {},
        "blkio": {"ioServiceBytesRecursive": raw.get("blkio") or [], **_pressure(unified, "io.pressure")},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _memory(memory: MemoryReading) -> Json:
    counters = memory["stat"]
    return {
        "cache": counters.get("cache", counters.get("file", 0)),
        "usage": {key: memory[name] for key, name in _MEMORY},  # type: ignore[literal-required]
        "raw": counters,
    }


def _pressure(directory: str, name: str) -> Json:
    """The time that processes waited for a resource (Documentation/accounting/psi.rst); empty where nobody counts."""
    try:
        text = files.read_or(directory, name) if directory else ""
    except OSError:
        text = ""  # the kernel knows the file, and has been told at its start not to count
    found: Json = {}
    for line in text.splitlines():
        kind, *fields = line.split()
        values = dict(field.split("=", 1) for field in fields)
        found[kind] = {key: float(value) if "." in value else int(value) for key, value in values.items()}
    return {"psi": found} if found else {}


def _print(event: Json) -> None:
    stdio.write(documents.dumps(event, spaces=False) + "\n")
