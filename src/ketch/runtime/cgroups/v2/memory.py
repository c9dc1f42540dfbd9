"""memory controller, v2 (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import os

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups import files, refusals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cgroups.readings import CgroupReading
    from ketch.runtime.oci_types import OciResources


def apply(directory: str, resources: OciResources) -> None:
    """Set limits in bytes; -1 is unlimited.  OCI's ``swap`` counts memory plus swap, v2 counts swap alone."""
    memory = resources.get("memory") or {}
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit and memory.get("checkBeforeUpdate"):
        refusals.check_usage(limit, files.number(files.read(directory, "memory.current")))
    if swap and swap > 0:
        refusals.need(directory, "memory.swap.max", "memory.swap")
    if swap and files.exists(directory, "memory.swap.max"):
        files.write(directory, "memory.swap.max", swap_max(limit or 0, swap))
    if limit:
        files.write(directory, "memory.max", "max" if limit < 0 else limit)
    if memory.get("reservation"):
        reservation = memory["reservation"]
        files.write(directory, "memory.low", "max" if reservation < 0 else reservation)


def swap_max(limit: int, swap: int) -> str:
    """The value of ``memory.swap.max`` for OCI's memory.limit and memory.swap."""
    if swap < 0:
        return "max"
    if limit <= 0:
        raise RuntimeFailure("set memory and swap limit: a swap limit needs a memory limit", step="cgroups")
    if swap < limit:
        raise RuntimeFailure("set memory and swap limit: it is below the memory limit", step="cgroups")
    return str(swap - limit)


def stats(directory: str, out: CgroupReading) -> None:
    """Fill ``out["memory"]``; bytes, except the event counts of ``stat``."""
    read = files.read_or
    usage = files.number(read(directory, "memory.current"))
    out["memory"] = {
        "usage": usage,
        "max_usage": files.number(read(directory, "memory.peak"), usage),
        "limit": files.number(read(directory, "memory.max")),
        "failcnt": _events(directory).get("max", 0),
        "stat": files.pairs(read(directory, "memory.stat")),
    }


def oom_kills(directory: str) -> int:
    """The number of processes here and below that the kernel killed for want of memory."""
    return _events(directory).get("oom_kill", 0)


def watch_oom(directory: str) -> int:
    """``memory.events``, open and read; -1 where there is no such file, or no longer."""
    try:
        fd = os.open(f"{directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    try:
        files.read_again(fd)
    except FileNotFoundError:
        os.close(fd)
        return -1
    return fd


def _events(directory: str) -> dict[str, int]:
    return files.pairs(files.read_or(directory, "memory.events"))
