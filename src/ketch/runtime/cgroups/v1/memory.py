"""memory controller, v1 (Documentation/admin-guide/cgroup-v1/memory.rst)."""

from __future__ import annotations

import os

from ketch.runtime.cgroups import files, refusals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cgroups.readings import CgroupReading
    from ketch.runtime.oci_types import OciResources


_LIMIT, _SWAP = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"


def apply(directory: str, resources: OciResources) -> None:
    """Set limits in bytes; -1 is unlimited.  Memory plus swap may never be below memory, so the order matters."""
    memory = resources.get("memory") or {}
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit and memory.get("checkBeforeUpdate"):
        refusals.check_usage(limit, files.number(files.read(directory, "memory.usage_in_bytes")))
    if swap and not files.exists(directory, _SWAP):  # a kernel without swap accounting
        if swap > 0:
            refusals.need(directory, _SWAP, "memory.swap")
        swap = None
    if limit and swap and _is_raise(directory, swap):
        files.write(directory, _SWAP, swap)
        files.write(directory, _LIMIT, limit)
    else:
        if limit:
            files.write(directory, _LIMIT, limit)
        if swap:
            files.write(directory, _SWAP, swap)
    if memory.get("reservation"):
        files.write(directory, "memory.soft_limit_in_bytes", memory["reservation"])
    if memory.get("kernelTCP"):
        files.write(directory, "memory.kmem.tcp.limit_in_bytes", memory["kernelTCP"])
    if refusals.has_swappiness(memory.get("swappiness")):
        refusals.need(directory, "memory.swappiness", "memory.swappiness")
        files.write(directory, "memory.swappiness", memory["swappiness"])
    if memory.get("disableOOMKiller"):
        files.write(directory, "memory.oom_control", "1")


def stats(directory: str, out: CgroupReading) -> None:
    """Fill ``out["memory"]``; bytes, except the event counts of ``stat``."""
    read = files.read_or
    out["memory"] = {
        "usage": files.number(read(directory, "memory.usage_in_bytes")),
        "max_usage": files.number(read(directory, "memory.max_usage_in_bytes")),
        "limit": files.number(read(directory, _LIMIT)),
        "failcnt": files.number(read(directory, "memory.failcnt")),
        "stat": files.pairs(read(directory, "memory.stat")),
    }


def oom_kills(directory: str) -> int:
    """The number of processes of this cgroup that the kernel killed for want of memory."""
    return files.pairs(files.read_or(directory, "memory.oom_control")).get("oom_kill", 0)


def watch_oom(directory: str) -> int:
    """An eventfd that becomes readable when memory runs out here."""
    event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control_fd = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            files.write(directory, "cgroup.event_control", f"{event_fd} {control_fd}")
        finally:
            os.close(control_fd)
    except BaseException:
        os.close(event_fd)
        raise
    return event_fd


def _is_raise(directory: str, swap: int) -> bool:
    return swap < 0 or swap > files.number(files.read(directory, _SWAP))
