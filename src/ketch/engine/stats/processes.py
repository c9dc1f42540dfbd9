"""Usage of a container's processes, for containers without a cgroup that counts it: a user's, where none is given.

Of the processes that live, and of those that they have waited for: a parent has the CPU time and the bytes of its
children that ended.  Memory is their proportional share of what is mapped (PSS), so without the page cache.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ketch.runtime.cgroups import common

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.runtime.cgroups.common import Cgroup
    from ketch.runtime.cgroups.readings import CgroupReading

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_UNLIMITED = (1 << 64) - 1
_ENOUGH = 4096


class Counted(msgspec.Struct):
    """Sums over processes; nanoseconds, bytes, threads."""

    user_ns: int = 0
    system_ns: int = 0
    memory: int = 0
    tasks: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


def are_to_be_counted() -> bool:
    """Whether cgroups may not count everything: those of a process without the machine's rights."""
    here = common.layout()
    return here.forbidden or bool(here.given)


def beside(firsts: Iterable[int]) -> dict[int, list[int]]:
    """The processes in the pid namespaces of containers' first processes, for those that have no cgroup.

    Of the machine's own pid namespace it is that process alone.
    """
    ours = os.stat("/proc/self/ns/pid").st_ino
    found: dict[int, list[int]] = {}
    by_namespace: dict[int, list[int]] = {}
    for first in firsts:
        with suppress(OSError):
            namespace = os.stat(f"/proc/{first}/ns/pid").st_ino
            found[first] = [first] if namespace == ours else by_namespace.setdefault(namespace, [])
    for name in os.listdir("/proc") if by_namespace else ():
        with suppress(OSError, KeyError):  # another user's, or it has ended
            if name.isascii() and name.isdecimal():
                by_namespace[os.stat(f"/proc/{name}/ns/pid").st_ino].append(int(name))
    return found


def of(cgroup: Cgroup, first: int) -> list[int]:
    """The processes of a container: in its cgroup, or beside its first one."""
    return cgroup.pids() or beside([first]).get(first, [])


def count(pids: Iterable[int]) -> Counted:
    """The sums; what ends meanwhile is left out."""
    sums = Counted()
    for pid in pids:
        with suppress(OSError):
            _add(sums, pid)
    return sums


def complete(reading: CgroupReading, counted: Counted) -> None:
    """Fill in what a cgroup does not count, for want of a controller."""
    if not reading.get("cpu", {}).get("total_ns"):
        user, system = counted.user_ns, counted.system_ns
        reading["cpu"] = {"total_ns": user + system, "user_ns": user, "system_ns": system}
    if "memory" not in reading or not reading["memory"]["usage"]:
        usage = counted.memory
        reading["memory"] = {"usage": usage, "max_usage": 0, "limit": _UNLIMITED, "failcnt": 0, "stat": {}}
    if "pids" not in reading or not reading["pids"]["current"]:
        reading["pids"] = {"current": counted.tasks, "limit": 0}
    if not reading.get("blkio"):
        moved = (("Read", counted.read_bytes), ("Write", counted.written_bytes))
        reading["blkio"] = [{"major": 0, "minor": 0, "op": op, "value": value} for op, value in moved]


def _add(sums: Counted, pid: int) -> None:
    fields = _read(pid, "stat").rpartition(b")")[2].split()  # proc_pid_stat(5), from the third on
    user, system, childrens_user, childrens_system = map(int, fields[11:15])
    sums.user_ns += (user + childrens_user) * _TICK_NS
    sums.system_ns += (system + childrens_system) * _TICK_NS
    sums.tasks += int(fields[17])
    sums.memory += _value(_read(pid, "smaps_rollup"), b"Pss:") * 1024
    moved = _read(pid, "io")
    sums.read_bytes += _value(moved, b"read_bytes:")
    sums.written_bytes += _value(moved, b"write_bytes:")


def _value(text: bytes, key: bytes) -> int:
    """The number behind a key at the beginning of a line; 0 when there is none."""
    for line in text.splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def _read(pid: int, name: str) -> bytes:
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _ENOUGH)
    finally:
        os.close(fd)
