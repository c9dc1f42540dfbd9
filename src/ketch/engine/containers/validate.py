"""Validation at ``create``: pure checks of the two configurations, before anything is made, as Docker has them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ketch.engine.logs import options as log_options
from ketch.engine.model.namespaces.mode import ModeKind, NamespaceMode
from ketch.engine.spec import limit_support
from ketch.errors import InvalidArgument
from ketch.network.files import is_address
from ketch.notation import digits
from ketch.runtime import spec as runtime_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.model.records import ContainerConfig, HostConfig

MINIMUM_MEMORY = 6 << 20
_OF_UTS = (ModeKind.DEFAULT, ModeKind.HOST)
_OF_PID = (*_OF_UTS, ModeKind.CONTAINER)
_OF_CGROUP = (*_OF_UTS, ModeKind.PRIVATE)
_OF_IPC = (*_OF_CGROUP, ModeKind.SHAREABLE, ModeKind.NONE, ModeKind.CONTAINER)
_HEALTH_ACTIONS = ("", "none", "kill", "restart", "stop")  # of --health-on-failure
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp)?)?\Z", re.ASCII | re.IGNORECASE)
_RESTART = ("", "no", "always", "unless-stopped", "on-failure")
_CPU_SET = re.compile(r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*\Z", re.ASCII)


def check(config: ContainerConfig, host: HostConfig) -> list[str]:
    """Warnings for what is accepted and has no effect; raises InvalidArgument with Docker's words otherwise."""
    if not config.image:
        raise InvalidArgument(
            "no command specified" if not (config.cmd or config.entrypoint) else "no image was specified"
        )
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    for item in config.env or ():
        if not item or item.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {item}")
        if "\0" in item:
            raise InvalidArgument("invalid environment variable: it contains a NUL byte")
    for entry in host.extra_hosts or ():
        _check_extra_host(entry)
    _check_stop(config)
    _check_restart(host)
    log_options.check(host.log_config)
    _check_ports(config, host)
    warnings = [*limit_support.discard(host), *_check_memory(host)]
    _check_cpu(host)
    _check_devices(host)
    host.console_size = terminal(host.console_size)
    _check_modes(host)
    _check_shared_network(config, host)
    warnings += _check_other_systems(host)
    if any(mount.type == "image" for mount in host.mounts or ()):
        warnings.append("Image mount is an experimental feature")
    if host.network.is_host and host.port_bindings:
        warnings.append("Published ports are discarded when using host network mode")
    _check_names(host)
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    return warnings


def _check_extra_host(entry: str) -> None:
    name, colon, address = entry.partition(":")
    if not name or not colon or any(c.isspace() and c != " " for c in entry):  # with spaces it is several names
        raise InvalidArgument(f'bad format for add-host: "{entry}"', hint="use NAME:ADDRESS")
    if address != "host-gateway" and (not is_address(address) or "%" in address):
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"')


def _check_names(host: HostConfig) -> None:
    for name in host.annotations or ():
        if not name:
            raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
        if name.startswith(runtime_spec.ANNOTATIONS):  # they name users, and files of the host to be read
            hint = f"names that begin with `{runtime_spec.ANNOTATIONS}` are the engine's own"
            raise InvalidArgument(f"invalid Annotations: `{name}` is not yours to set", hint=hint)
    for group in host.group_add or ():
        if not group or "," in group:
            raise InvalidArgument(f"unable to find group {group}: no matching entries in group file")


def _check_stop(config: ContainerConfig) -> None:
    if config.stop_signal:
        from ketch.engine.spec.bundle import signal_number

        signal_number(config.stop_signal)
    if (health := config.healthcheck) is not None:
        times = (
            ("Interval", health.interval),
            ("Timeout", health.timeout),
            ("StartPeriod", health.start_period),
            ("StartInterval", health.start_interval),
        )
        for name, value in times:
            if value and value < 1_000_000:
                raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
        if health.retries < 0:
            raise InvalidArgument("Retries in Healthcheck cannot be negative")
        if health.on_failure not in _HEALTH_ACTIONS:
            raise InvalidArgument(
                f"invalid action for an unhealthy container: {health.on_failure}",
                hint="use none, kill, restart or stop",
            )


def _check_restart(host: HostConfig) -> None:
    policy = host.restart_policy
    if policy.name not in _RESTART:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def _check_ports(config: ContainerConfig, host: HostConfig) -> None:
    for spec in (*(config.exposed_ports or ()), *(host.port_bindings or ())):
        match = _PORT.match(spec)
        ends = [int(p) for p in match.groups()[:2] if p] if match else []
        if not ends or not all(0 < end < 65536 for end in ends) or ends != sorted(ends):
            number = spec.partition("/")[0]
            raise InvalidArgument(f'invalid port specification: "{number}"', hint=f"in `{spec}`; use e.g. 80/tcp")
    for spec, bindings in (host.port_bindings or {}).items():
        for binding in bindings or ():
            if binding.host_port and not _valid_host_port(binding.host_port):
                raise InvalidArgument(f'invalid port specification: "{binding.host_port}" (for {spec})')


def _valid_host_port(text: str) -> bool:
    first, dash, last = text.partition("/")[0].partition("-")
    numbers = [digits.whole(n, 65535) for n in ([first, last] if dash else [first])]
    ends = [n for n in numbers if n is not None]
    return len(ends) == len(numbers) and ends == sorted(ends)


def _check_memory(host: HostConfig) -> list[str]:
    warnings: list[str] = []
    if host.memory and host.memory < MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory and 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if 0 < host.memory_reservation < MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if host.memory and host.memory < host.memory_reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.oom_kill_disable and not host.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    if host.oom_score_adj and not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    return warnings


def _check_cpu(host: HostConfig) -> None:
    cpus = os.cpu_count() or 1
    if host.nano_cpus and (host.cpu_period or host.cpu_quota):
        which = "Period" if host.cpu_period else "Quota"
        raise InvalidArgument(f"Conflicting options: Nano CPUs and CPU {which} cannot both be set")
    if host.nano_cpus < 0 or host.nano_cpus > cpus * 1_000_000_000:
        raise InvalidArgument(f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")
    if host.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if _highest("cpus", host.cpuset_cpus) >= cpus:
        raise InvalidArgument(
            f"Requested CPUs are not available - requested {host.cpuset_cpus}, available: 0-{cpus - 1}"
        )
    if (highest := _highest("mems", host.cpuset_mems)) > 0 and highest > (last := _last_memory_node()):
        available = f"0-{last}" if last else "0"
        raise InvalidArgument(
            f"Requested memory nodes are not available - requested {host.cpuset_mems}, available: {available}"
        )
    if 0 < host.cpu_realtime_period < host.cpu_realtime_runtime:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")


def _highest(what: str, text: str) -> int:
    """The highest number of a set such as ``0-2,5``; -1 for an empty one (InvalidArgument)."""
    if not text:
        return -1
    spans = [[int(n) for n in part.split("-")] for part in text.split(",")] if _CPU_SET.match(text) else [[1, 0]]
    if any(span[0] > span[-1] for span in spans):
        raise InvalidArgument(f"Invalid value {text} for cpuset {what}: invalid format: {text}")
    return max(span[-1] for span in spans)


def _last_memory_node() -> int:
    try:
        with open("/sys/devices/system/node/online", encoding="ascii") as f:
            return _highest("mems", f.read().strip())
    except OSError:  # a kernel without NUMA has one
        return 0


def _check_devices(host: HostConfig) -> None:
    weights = [host.blkio_weight, *(d.weight for d in host.blkio_weight_device or ())]
    if any(weight and not 10 <= weight <= 1000 for weight in weights):
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    for limits in (
        host.blkio_device_read_bps,
        host.blkio_device_write_bps,
        host.blkio_device_read_iops,
        host.blkio_device_write_iops,
    ):
        for limit in limits or ():
            if limit.rate < 0:
                raise InvalidArgument(f"invalid rate for device {limit.path}: {limit.rate}")


def terminal(size: Sequence[int] | None) -> list[int] | None:
    """``ConsoleSize``, [rows, columns], as Go reads an array of two: what is missing is 0, more is overlooked."""
    return [*size, 0, 0][:2] if size else None


def _check_modes(host: HostConfig) -> None:
    for name, text, kinds in (
        ("PID mode", host.pid_mode, _OF_PID),
        ("IPC mode", host.ipc_mode, _OF_IPC),
        ("UTS mode", host.uts_mode, _OF_UTS),
        ("cgroup namespace mode", host.cgroupns_mode, _OF_CGROUP),
    ):
        try:
            mode = NamespaceMode.parse(text)
        except ValueError as e:
            raise InvalidArgument(f"invalid {name}: {text}") from e
        if mode.kind not in kinds or mode.container == "":
            raise InvalidArgument(f"invalid {name}: {text}")
    if host.network.container == "":
        raise InvalidArgument("invalid network mode: invalid container format container:<name|id>")


def _check_shared_network(config: ContainerConfig, host: HostConfig) -> None:
    """Options that belong to a namespace which is another's are refused, for they would have no effect."""
    if host.uts.is_host and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.network.container is None:
        return
    for given, what in (
        (config.hostname, "hostname and the network mode"),
        (host.links, "container type network can't be used with links. This would result in undefined behavior"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (host.port_bindings or host.publish_all_ports, "port publishing and the container type network mode"),
        (config.exposed_ports, "port exposing and the container type network mode"),
    ):
        if given:
            raise InvalidArgument(f"conflicting options: {what}")


def _check_other_systems(host: HostConfig) -> list[str]:
    """Options that only Windows has: refused, or dropped with a warning, as by Docker."""
    if host.isolation.lower() not in ("", "default"):
        raise InvalidArgument(f"invalid isolation ({host.isolation}): linux only supports 'default'")
    if host.io_maximum_iops:
        raise InvalidArgument("invalid option: QoS maximum IOPs configuration is not supported on linux")
    if host.io_maximum_bandwidth:
        raise InvalidArgument("invalid option: QoS maximum bandwidth configuration is not supported on linux")
    if host.cpu_percent > 0:
        host.cpu_percent = 0
        return ["linux does not support CPU percent. Percent discarded."]
    return []
