"""Scheduling of a container's process, its priorities, memory, personality.

Read before anything is made (`Scheduling`), applied as one of the last steps before its user changes.
"""

from __future__ import annotations

import os
from errno import EPERM

from ketch.errors import RuntimeFailure
from ketch.linux import scheduler
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.runtime.oci_types import (
        OciIoPriority,
        OciLinux,
        OciMemoryPolicy,
        OciPersonality,
        OciProcess,
        OciScheduler,
    )

_WITH_PRIORITY = ("SCHED_FIFO", "SCHED_RR")


class Scheduling:
    """The wishes of a process object and of its container; RuntimeFailure (step ``config``): one is wrong."""

    __slots__ = ("_cpus", "_steps")

    def __init__(self, process: OciProcess, linux: OciLinux) -> None:
        self._cpus = ((linux.get("resources") or {}).get("cpu") or {}).get("cpus") or ""
        self._steps: list[tuple[str, Callable[[], None]]] = []
        if wanted := process.get("scheduler"):
            self._steps.append((f"set scheduler `{wanted['policy']}`", _policy(wanted)))
        if priority := process.get("ioPriority"):
            self._steps.append((f"set ioPriority `{priority['class']}`", _io_priority(priority)))
        if policy := linux.get("memoryPolicy"):
            self._steps.append((f"set memoryPolicy `{policy.get('mode')}`", _memory_policy(policy)))
        if personality := linux.get("personality"):
            self._steps.append((f"set personality `{personality.get('domain')}`", _personality(personality)))

    def apply(self) -> None:
        """Set all of it on the calling process; what needs a privilege needs it now."""
        for what, step in self._steps:
            try:
                step()
            except OSError as e:
                raise failure("scheduling", what, e, self._hint() if e.errno == EPERM else None) from e

    def _hint(self) -> str:
        """A sentence for EPERM: SCHED_DEADLINE is for processes that may use every CPU (sched_setattr(2))."""
        if self._cpus:
            return f"process scheduler can't be used together with AllowedCPUs `{self._cpus}`"
        return "CAP_SYS_NICE is needed"


def _policy(wanted: OciScheduler) -> Callable[[], None]:
    name = wanted["policy"]
    nice, priority = wanted.get("nice") or 0, wanted.get("priority") or 0
    times = (wanted.get("runtime") or 0, wanted.get("deadline") or 0, wanted.get("period") or 0)
    if not -20 <= nice <= 19:
        raise _wrong("process.scheduler.nice", f"{nice} is not in -20…19")
    if priority and name not in _WITH_PRIORITY:
        raise _wrong("process.scheduler.priority", f"`{name}` has none")
    if any(times) and name != "SCHED_DEADLINE":
        raise _wrong("process.scheduler.runtime, deadline and period", f"`{name}` has none")
    flags = 0
    for flag in wanted.get("flags") or ():
        flags |= scheduler.POLICY_FLAGS[flag]
    return lambda: scheduler.set_policy(scheduler.POLICIES[name], flags, nice, priority, times)


def _io_priority(wanted: OciIoPriority) -> Callable[[], None]:
    priority = wanted.get("priority") or 0
    if not 0 <= priority <= 7:
        raise _wrong("process.ioPriority.priority", f"{priority} is not in 0…7")
    return lambda: scheduler.set_io_priority(scheduler.IO_CLASSES[wanted["class"]], priority)


def _memory_policy(wanted: OciMemoryPolicy) -> Callable[[], None]:
    if not wanted.get("mode"):
        raise _wrong("linux.memoryPolicy.mode", "it is missing")
    nodes = numbers("linux.memoryPolicy.nodes", wanted.get("nodes") or "")
    mode = scheduler.MEMORY_MODES[wanted["mode"]]
    for flag in wanted.get("flags") or ():
        mode |= scheduler.MEMORY_FLAGS[flag]
    return lambda: scheduler.set_memory_policy(mode, nodes)


def _personality(wanted: OciPersonality) -> Callable[[], None]:
    persona = scheduler.PERSONALITIES[wanted.get("domain") or "LINUX"]
    return lambda: scheduler.set_personality(persona)


def set_affinity(cpus: frozenset[int]) -> None:
    """Let the calling process run on ``cpus``, or (none) on every one of its cpuset.

    What the caller was bound to is not the container's business.
    """
    try:
        if cpus:
            os.sched_setaffinity(0, cpus)
        else:
            scheduler.reset_affinity()
    except OSError as e:
        where = ",".join(map(str, sorted(cpus))) or "all"
        raise failure("scheduling", f"set CPU affinity `{where}`", e) from e


def numbers(field: str, text: str) -> frozenset[int]:
    """The CPUs or memory nodes that a field names."""
    try:
        return scheduler.parse_list(text)
    except ValueError:
        raise _wrong(field, f"`{text}` is no list of numbers and ranges") from None


def _wrong(field: str, why: str) -> RuntimeFailure:
    return RuntimeFailure(f"read config.json: {field}: {why}", step="config")
