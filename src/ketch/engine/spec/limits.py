"""A container's limits: Docker's fields → OCI's ``linux.resources`` (runtime-spec v1.2, config-linux)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.model.records import HostConfig, ThrottleDevice
    from ketch.runtime.oci_types import OciBlockIO, OciCpu, OciMemory, OciResources, OciThrottleDevice


def normalize(host: HostConfig) -> None:
    """Fill in the limits that Docker derives at creation: as much swap as memory."""
    if host.memory > 0 and not host.memory_swap:
        host.memory_swap = _twice(host.memory)


def _twice(memory: int) -> int:
    """As much swap as memory, both in one number; clients read it as a signed one of 64 bits."""
    return min(memory * 2, (1 << 63) - 1)


def resources(host: HostConfig) -> OciResources:
    """OCI ``linux.resources`` from Docker's limits; resources without a limit are left out."""
    result: OciResources = {}
    if memory := _memory(host):
        result["memory"] = memory
    if cpu := _cpu(host):
        result["cpu"] = cpu
    if host.pids_limit:
        result["pids"] = {"limit": host.pids_limit}
    if block := _block_io(host):
        result["blockIO"] = block
    return result


def _memory(host: HostConfig) -> OciMemory:
    result: OciMemory = {}
    if host.memory > 0:
        result["limit"] = host.memory
        result["swap"] = host.memory_swap or _twice(host.memory)  # -1 is no limit on swap
    if host.memory_reservation > 0:
        result["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        result["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        result["disableOOMKiller"] = True
    return result


def _cpu(host: HostConfig) -> OciCpu:
    result: OciCpu = {}
    if host.cpu_shares:
        result["shares"] = host.cpu_shares
    if host.nano_cpus > 0:
        result["period"] = 100_000
        result["quota"] = host.nano_cpus * 100_000 // 1_000_000_000
    if host.cpu_period:
        result["period"] = host.cpu_period
    if host.cpu_quota:
        result["quota"] = host.cpu_quota
    if host.cpu_realtime_period:
        result["realtimePeriod"] = host.cpu_realtime_period
    if host.cpu_realtime_runtime:
        result["realtimeRuntime"] = host.cpu_realtime_runtime
    if host.cpuset_cpus:
        result["cpus"] = host.cpuset_cpus
    if host.cpuset_mems:
        result["mems"] = host.cpuset_mems
    return result


def _block_io(host: HostConfig) -> OciBlockIO:
    """OCI ``linux.resources.blockIO``; the devices are the host's, by path."""
    result: OciBlockIO = {}
    if host.blkio_weight:
        result["weight"] = host.blkio_weight
    if weighted := host.blkio_weight_device:
        numbers = [_device_number(device.path) for device in weighted]
        result["weightDevice"] = [
            {"major": major, "minor": minor, "weight": device.weight}
            for device, (major, minor) in zip(weighted, numbers, strict=True)
        ]
    if host.blkio_device_read_bps:
        result["throttleReadBpsDevice"] = _throttles(host.blkio_device_read_bps)
    if host.blkio_device_write_bps:
        result["throttleWriteBpsDevice"] = _throttles(host.blkio_device_write_bps)
    if host.blkio_device_read_iops:
        result["throttleReadIOPSDevice"] = _throttles(host.blkio_device_read_iops)
    if host.blkio_device_write_iops:
        result["throttleWriteIOPSDevice"] = _throttles(host.blkio_device_write_iops)
    return result


def _throttles(devices: Sequence[ThrottleDevice]) -> list[OciThrottleDevice]:
    numbers = [_device_number(device.path) for device in devices]
    return [
        {"major": major, "minor": minor, "rate": device.rate}
        for device, (major, minor) in zip(devices, numbers, strict=True)
    ]


def _device_number(path: str) -> tuple[int, int]:
    """Major and minor number of the host's device at ``path``."""
    try:
        number = os.stat(path).st_rdev
    except OSError as e:
        raise InvalidArgument(f"limit block device `{path}`: {e.strerror}") from e
    return os.major(number), os.minor(number)
