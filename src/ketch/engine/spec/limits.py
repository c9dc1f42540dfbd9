"""A container's limits: Docker's fields → OCI's ``linux.resources`` (runtime-spec v1.2, config-linux)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from ketch.engine.model.records import HostConfig


def normalize(host: HostConfig) -> None:
    """Fill in the limits that Docker derives at creation: as much swap as memory."""
    if host.memory > 0 and not host.memory_swap:
        host.memory_swap = host.memory * 2


def resources(host: HostConfig) -> dict[str, Any]:
    """OCI ``linux.resources`` from Docker's limits; resources without a limit are left out."""
    memory: dict[str, Any] = {}
    if host.memory > 0:
        memory["limit"] = host.memory
        memory["swap"] = host.memory_swap or host.memory * 2  # -1 is no limit on swap
    if host.memory_reservation > 0:
        memory["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        memory["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        memory["disableOOMKiller"] = True
    cpu: dict[str, Any] = {}
    if host.nano_cpus > 0:
        cpu["period"] = 100_000
        cpu["quota"] = host.nano_cpus * 100_000 // 1_000_000_000
    given = {
        "shares": host.cpu_shares,
        "period": host.cpu_period,
        "quota": host.cpu_quota,
        "cpus": host.cpuset_cpus,
        "mems": host.cpuset_mems,
    }
    cpu.update({key: value for key, value in given.items() if value})
    result: dict[str, Any] = {}
    if memory:
        result["memory"] = memory
    if cpu:
        result["cpu"] = cpu
    if host.pids_limit:
        result["pids"] = {"limit": host.pids_limit}
    if block := _block_io(host):
        result["blockIO"] = block
    return result


def _block_io(host: HostConfig) -> dict[str, Any]:
    """OCI ``linux.resources.blockIO``; the devices are the host's, by path."""
    result: dict[str, Any] = {"weight": host.blkio_weight} if host.blkio_weight else {}
    if host.blkio_weight_device:
        result["weightDevice"] = [{**_block_device(d.path), "weight": d.weight} for d in host.blkio_weight_device]
    for key, devices_ in (
        ("throttleReadBpsDevice", host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", host.blkio_device_write_iops),
    ):
        if devices_:
            result[key] = [{**_block_device(d.path), "rate": d.rate} for d in devices_]
    return result


def _block_device(path: str) -> dict[str, int]:
    try:
        number = os.stat(path).st_rdev
    except OSError as e:
        raise InvalidArgument(f"limit block device `{path}`: {e.strerror}") from e
    return {"major": os.major(number), "minor": os.minor(number)}
