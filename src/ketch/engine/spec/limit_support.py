"""Limits that the machine's cgroups have: what they lack is dropped with a warning, or refused, as dockerd does.

One table for both versions of cgroups.  Of v1 a limit is known by its file in the controller's hierarchy; v2 has it or
lacks it for good, but for the limit on swap, which depends on how the kernel was built and booted, and the weights of
block devices, which depend on a device's scheduler.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ketch.errors import InvalidArgument
from ketch.runtime.cgroups import common, files

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.model.records import HostConfig
    from ketch.runtime.cgroups.common import Layout

_LACK = "Your kernel does not support"
_UNMOUNTED = "or the cgroup is not mounted."


class Limit(NamedTuple):
    """One kind of limit.

    ``v1``: its controller, and the file that only kernels with it have; ``v2``: the same there, without a controller if
    v2 has no such limit.
    ``wanted`` says whether a container asks for it, and ``without`` what its fields are set to where it is dropped:
    with no such fields it is refused.  ``words`` are Docker's.
    """

    name: str
    v1: tuple[str, str]
    v2: tuple[str, str]
    wanted: Callable[[HostConfig], object]
    words: str
    without: dict[str, Any]


def _asks_for_swap(host: HostConfig) -> bool:
    return host.memory > 0 and host.memory_swap != -1


LIMITS = (
    Limit(
        "MemoryLimit",
        ("memory", "memory.limit_in_bytes"),
        ("memory", ""),
        lambda host: host.memory > 0,
        f"{_LACK} memory limit capabilities {_UNMOUNTED} Limitation discarded.",
        {"memory": 0, "memory_swap": -1},
    ),
    Limit(
        "SwapLimit",
        ("memory", "memory.memsw.limit_in_bytes"),
        ("memory", "memory.swap.max"),
        _asks_for_swap,
        f"{_LACK} swap limit capabilities {_UNMOUNTED} Memory limited without swap.",
        {"memory_swap": -1},
    ),
    Limit(
        "MemorySwappiness",
        ("memory", "memory.swappiness"),
        ("", ""),
        lambda host: host.memory_swappiness not in (None, -1),
        f"{_LACK} memory swappiness capabilities {_UNMOUNTED} Memory swappiness discarded.",
        {"memory_swappiness": None},
    ),
    Limit(
        "MemoryReservation",
        ("memory", "memory.soft_limit_in_bytes"),
        ("memory", ""),
        lambda host: host.memory_reservation > 0,
        f"{_LACK} memory soft limit capabilities {_UNMOUNTED} Limitation discarded.",
        {"memory_reservation": 0},
    ),
    Limit(
        "OomKillDisable",
        ("memory", "memory.oom_control"),
        ("", ""),
        lambda host: host.oom_kill_disable,
        f"{_LACK} OomKillDisable. OomKillDisable discarded.",
        {"oom_kill_disable": None},
    ),
    Limit(
        "PidsLimit",
        ("pids", ""),
        ("pids", ""),
        lambda host: (host.pids_limit or 0) > 0,
        f"{_LACK} PIDs limit capabilities {_UNMOUNTED} PIDs limit discarded.",
        {"pids_limit": None},
    ),
    Limit(
        "NanoCpus",
        ("cpu", "cpu.cfs_quota_us"),
        ("cpu", ""),
        lambda host: host.nano_cpus > 0,
        "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        {},
    ),
    Limit(
        "CPUShares",
        ("cpu", "cpu.shares"),
        ("cpu", ""),
        lambda host: host.cpu_shares > 0,
        f"{_LACK} CPU shares {_UNMOUNTED} Shares discarded.",
        {"cpu_shares": 0},
    ),
    Limit(
        "CpuCfsQuota",
        ("cpu", "cpu.cfs_quota_us"),
        ("cpu", ""),
        lambda host: host.cpu_period or host.cpu_quota,
        f"{_LACK} CPU CFS scheduler. CPU period/quota discarded.",
        {"cpu_period": 0, "cpu_quota": 0},
    ),
    Limit(
        "CpuRealtime",
        ("cpu", "cpu.rt_runtime_us"),
        ("", ""),
        lambda host: host.cpu_realtime_period or host.cpu_realtime_runtime,
        "kernel does not support CPU real-time scheduler",
        {},
    ),
    Limit(
        "CPUSet",
        ("cpuset", ""),
        ("cpuset", ""),
        lambda host: host.cpuset_cpus or host.cpuset_mems,
        f"{_LACK} cpuset {_UNMOUNTED} Cpuset discarded.",
        {"cpuset_cpus": "", "cpuset_mems": ""},
    ),
    Limit(
        "BlkioWeight",
        ("blkio", "blkio.weight"),
        ("io", ""),
        lambda host: host.blkio_weight,
        f"{_LACK} Block I/O weight {_UNMOUNTED} Weight discarded.",
        {"blkio_weight": 0},
    ),
    Limit(
        "BlkioWeightDevice",
        ("blkio", "blkio.weight_device"),
        ("io", ""),
        lambda host: host.blkio_weight_device,
        f"{_LACK} Block I/O weight_device {_UNMOUNTED} Weight-device discarded.",
        {"blkio_weight_device": []},
    ),
    Limit(
        "BlkioDeviceReadBps",
        ("blkio", "blkio.throttle.read_bps_device"),
        ("io", ""),
        lambda host: host.blkio_device_read_bps,
        f"{_LACK} BPS Block I/O read limit {_UNMOUNTED} Block I/O BPS read limit discarded.",
        {"blkio_device_read_bps": []},
    ),
    Limit(
        "BlkioDeviceWriteBps",
        ("blkio", "blkio.throttle.write_bps_device"),
        ("io", ""),
        lambda host: host.blkio_device_write_bps,
        f"{_LACK} BPS Block I/O write limit {_UNMOUNTED} Block I/O BPS write limit discarded.",
        {"blkio_device_write_bps": []},
    ),
    Limit(
        "BlkioDeviceReadIOps",
        ("blkio", "blkio.throttle.read_iops_device"),
        ("io", ""),
        lambda host: host.blkio_device_read_iops,
        f"{_LACK} IOPS Block read limit {_UNMOUNTED} Block I/O IOPS read limit discarded.",
        {"blkio_device_read_iops": []},
    ),
    Limit(
        "BlkioDeviceWriteIOps",
        ("blkio", "blkio.throttle.write_iops_device"),
        ("io", ""),
        lambda host: host.blkio_device_write_iops,
        f"{_LACK} IOPS Block write limit {_UNMOUNTED} Block I/O IOPS write limit discarded.",
        {"blkio_device_write_iops": []},
    ),
)
# What `info` warns of, by the words for v1 and v2; of swappiness and the like only who asks for them is warned.
_WARNED = (
    ("MemoryLimit", "memory limit", "memory limit"),
    ("SwapLimit", "swap limit", "swap limit"),
    ("OomKillDisable", "oom kill disable", ""),
    ("CpuCfsQuota", "cpu cfs quota", "cpu cfs quota"),
    ("CpuCfsQuota", "cpu cfs period", "cpu cfs period"),
    ("CPUShares", "cpu shares", "cpu shares"),
    ("CPUSet", "cpuset", "cpuset"),
    ("BlkioWeight", "", "io.weight"),
    ("BlkioWeightDevice", "", "io.weight (per device)"),
    ("BlkioDeviceReadBps", "blkio throttle.read_bps_device", "io.max (rbps)"),
    ("BlkioDeviceWriteBps", "blkio throttle.write_bps_device", "io.max (wbps)"),
    ("BlkioDeviceReadIOps", "blkio throttle.read_iops_device", "io.max (riops)"),
    ("BlkioDeviceWriteIOps", "blkio throttle.write_iops_device", "io.max (wiops)"),
)
# Weights of v1 belong to a scheduler that has been replaced by another, whose files are not in the root.
_OTHER_NAMES = {"blkio.weight": "blkio.bfq.weight", "blkio.weight_device": "blkio.bfq.weight_device"}


def discard(host: HostConfig) -> list[str]:
    """Drop the limits that this machine cannot set; returns warnings (InvalidArgument for what is refused)."""
    return drop(host, common.layout())


def drop(host: HostConfig, layout: Layout) -> list[str]:
    """The same for cgroups that are mounted so."""
    warnings: list[str] = []
    for limit in LIMITS:
        if not limit.wanted(host) or _has(limit, host, layout):
            continue
        if not limit.without:
            raise InvalidArgument(limit.words)
        for field, value in limit.without.items():
            setattr(host, field, value)
        warnings.append(limit.words)
    return warnings


def _has(limit: Limit, host: HostConfig, layout: Layout) -> bool:
    found = supported(layout)[limit.name]
    if found and limit.name == "BlkioWeightDevice":
        root = layout.unified or "" if layout.version == 2 else ""
        return all(_has_weights(device.path, root) for device in host.blkio_weight_device or ())
    return found


@cache
def supported(layout: Layout) -> dict[str, bool]:
    """Which limits there are, by name; a kernel's do not change."""
    if layout.version == 1:
        return {limit.name: _on_v1(layout, *limit.v1) for limit in LIMITS}
    root = (layout.unified or "") + layout.given
    controllers = files.read_or(root, "cgroup.controllers").split()
    return {limit.name: limit.v2[0] in controllers and _on_v2(root, *limit.v2) for limit in LIMITS}


def warnings(layout: Layout) -> list[str]:
    """The warnings of `info` about limits that the machine lacks, in Docker's words."""
    has = supported(layout)
    lacking = [words[layout.version - 1] for name, *words in _WARNED if not has[name]]
    return [f"WARNING: No {what} support" for what in lacking if what]


def _on_v1(layout: Layout, controller: str, file: str) -> bool:
    root = layout.hierarchies.get(controller)
    if root is None:
        return False
    if not file or files.exists(root, file):
        return True
    other = _OTHER_NAMES.get(file)
    return other is not None and any(files.exists(directory, other) for directory in _below(root))


def _on_v2(root: str, controller: str, file: str) -> bool:
    """The root of v2 has no limits: the cgroups in it show which there are."""
    shown = [directory for directory in _below(root) if files.exists(directory, f"{controller}.max")] if file else []
    return not shown or any(files.exists(directory, file) for directory in shown)


def _below(root: str) -> list[str]:
    with os.scandir(root) as entries:
        return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def _has_weights(path: str, root: str) -> bool:
    """Whether a device's scheduler has weights, or v2 computes its share by cost (cgroup-v2.rst, io.cost.qos)."""
    try:
        number = os.stat(path).st_rdev
    except OSError:
        return True  # who asks for it is told what is wrong with it
    device = f"{os.major(number)}:{os.minor(number)}"
    scheduler = files.read_or(f"/sys/dev/block/{device}/queue", "scheduler")
    if "[bfq]" in scheduler or "[cfq]" in scheduler:
        return True
    return bool(root) and any(
        line.split()[0] == device for line in files.read_or(root, "io.cost.qos").splitlines() if line
    )
