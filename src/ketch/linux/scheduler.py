"""The calling process's scheduling: sched_setattr(2), ioprio_set(2), set_mempolicy(2), sched_setaffinity(2).

And personality(2), the machine that it sees.  All of it outlives execve(2).
"""

from __future__ import annotations

import struct

from ketch.linux.syscall import c_char_p, c_int, c_long, failed, function, number, raw

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
POLICY_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
PERSONALITIES = {"LINUX": 0, "LINUX32": 8}

_ATTRIBUTES = "=IIQiIQQQII"  # struct sched_attr
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13
_EVERY_CPU = b"\xff" * 1024  # those that the machine does not have are left out by the kernel

_sched_setattr = raw("sched_setattr", c_int, c_char_p, c_int)
_ioprio_set = raw("ioprio_set", c_int, c_int, c_int)
_set_mempolicy = raw("set_mempolicy", c_int, c_char_p, c_long)
_sched_setaffinity = function("sched_setaffinity", c_int, c_long, c_char_p)
_personality = function("personality", c_long)


def set_policy(policy: int, flags: int, nice: int, priority: int, times: tuple[int, int, int]) -> None:
    """sched_setattr(2); ``times``: runtime, deadline and period of SCHED_DEADLINE in nanoseconds."""
    size = struct.calcsize(_ATTRIBUTES)
    attributes = struct.pack(_ATTRIBUTES, size, policy, flags, nice, priority, *times, 0, 0)
    if _sched_setattr(number("sched_setattr"), 0, attributes, 0) < 0:
        raise failed("sched_setattr")


def set_io_priority(io_class: int, priority: int) -> None:
    """ioprio_set(2): a class, and a priority (0…7, 0 comes first) in it."""
    if _ioprio_set(number("ioprio_set"), _IOPRIO_WHO_PROCESS, 0, io_class << _IOPRIO_CLASS_SHIFT | priority) < 0:
        raise failed("ioprio_set")


def set_memory_policy(mode: int, nodes: frozenset[int]) -> None:
    """set_mempolicy(2): a mode with its flags, and the nodes that it is about."""
    if _set_mempolicy(number("set_mempolicy"), mode, *_node_mask(nodes)) < 0:
        raise failed("set_mempolicy")


def _node_mask(nodes: frozenset[int]) -> tuple[bytes | None, int]:
    """The mask, and one more than the number of its bits, which is what the kernel takes for that number."""
    if not nodes:
        return None, 0
    longs = max(nodes) // 64 + 1
    return sum(1 << node for node in nodes).to_bytes(8 * longs, "little"), 64 * longs + 1


def reset_affinity() -> None:
    """Allow every CPU of the process's cpuset: the caller's own affinity is not the container's business."""
    if _sched_setaffinity(0, len(_EVERY_CPU), _EVERY_CPU) < 0:
        raise failed("sched_setaffinity")


def set_personality(persona: int) -> None:
    """personality(2)."""
    if _personality(persona) < 0:
        raise failed("personality")


def parse_list(text: str) -> frozenset[int]:
    """The numbers of a list of CPUs or memory nodes as cpuset(7) writes them (``0-3,7``); ValueError: it is none."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not part.strip():
            continue
        low, high = int(first), int(last if dash else first)
        if not (first.isdecimal() and (last if dash else first).isdecimal()) or not low <= high < 1 << 13:
            raise ValueError(f"`{part}` is no range of numbers")
        numbers.update(range(low, high + 1))
    return frozenset(numbers)
