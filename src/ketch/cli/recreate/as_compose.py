"""Containers as a Compose file that would make them again; networks and volumes are the ones that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.cli.recreate.as_run import device_value
from ketch.cli.recreate.configuration import published
from ketch.notation import durations

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ketch.cli.recreate.configuration import Wanted

# field of HostConfig → key of a service
_SAME = {
    "CapAdd": "cap_add", "CapDrop": "cap_drop", "CgroupParent": "cgroup_parent", "CgroupnsMode": "cgroup",
    "CpuPeriod": "cpu_period", "CpuQuota": "cpu_quota", "CpuRealtimePeriod": "cpu_rt_period",
    "CpuRealtimeRuntime": "cpu_rt_runtime", "CpuShares": "cpu_shares", "CpusetCpus": "cpuset",
    "DeviceCgroupRules": "device_cgroup_rules", "Dns": "dns", "DnsOptions": "dns_opt", "DnsSearch": "dns_search",
    "ExtraHosts": "extra_hosts", "GroupAdd": "group_add", "IpcMode": "ipc", "Isolation": "isolation",
    "Links": "external_links", "Memory": "mem_limit", "MemoryReservation": "mem_reservation",
    "MemorySwap": "memswap_limit", "MemorySwappiness": "mem_swappiness", "OomKillDisable": "oom_kill_disable",
    "OomScoreAdj": "oom_score_adj", "PidMode": "pid", "PidsLimit": "pids_limit", "Privileged": "privileged",
    "ReadonlyRootfs": "read_only", "Runtime": "runtime", "SecurityOpt": "security_opt", "ShmSize": "shm_size",
    "UTSMode": "uts", "UsernsMode": "userns_mode", "Init": "init", "Annotations": "annotations",
    "StorageOpt": "storage_opt", "Sysctls": "sysctls",
}  # fmt: skip
_CONFIG = {
    "Hostname": "hostname", "Domainname": "domainname", "User": "user", "WorkingDir": "working_dir",
    "StopSignal": "stop_signal", "Tty": "tty", "OpenStdin": "stdin_open",
}  # fmt: skip
_HEALTH = {"Interval": "interval", "Timeout": "timeout", "StartPeriod": "start_period",
           "StartInterval": "start_interval"}  # fmt: skip
_RATES = {
    "BlkioDeviceReadBps": "device_read_bps", "BlkioDeviceWriteBps": "device_write_bps",
    "BlkioDeviceReadIOps": "device_read_iops", "BlkioDeviceWriteIOps": "device_write_iops",
    "BlkioWeightDevice": "weight_device",
}  # fmt: skip
_OWN_LABELS = "com.docker.compose."


def document(containers: Sequence[Wanted]) -> dict[str, Any]:
    """The file's content: services, and the networks and volumes that they name."""
    names = {wanted.id: _service_name(wanted, containers) for wanted in containers}
    services: dict[str, Any] = {}
    networks: dict[str, Any] = {}
    volumes: dict[str, Any] = {}
    for wanted in containers:
        services[names[wanted.id]] = _service(wanted, {c.name: names[c.id] for c in containers} | names)
        networks |= {} if wanted.plain_network else dict.fromkeys(_joined_networks(wanted), {})
        volumes |= {name: {} for name in _named_volumes(wanted)}
    declared = [{name: {"name": name, "external": True} for name in one} for one in (networks, volumes)]
    parts = {"services": services, "networks": declared[0], "volumes": declared[1]}
    return {key: _escaped(value) for key, value in parts.items() if value}


def _service_name(wanted: Wanted, containers: Sequence[Wanted]) -> str:
    """Compose's own name for it, unless two would have it."""
    label = f"{_OWN_LABELS}service"
    name = wanted.labels.get(label)
    return name if name and sum(c.labels.get(label) == name for c in containers) == 1 else wanted.name


def _escaped(value: Any) -> Any:
    """Compose puts variables in for ``$NAME``; ``$$`` is a dollar."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _service(wanted: Wanted, services: dict[str, str]) -> dict[str, Any]:
    service: dict[str, Any] = {"image": wanted.image, "container_name": wanted.name}
    if wanted.entrypoint is not None:
        service["entrypoint"] = wanted.entrypoint
    if wanted.command:
        service["command"] = wanted.command
    for key, name in _CONFIG.items():
        if key in wanted.config:
            service[name] = wanted.config[key]
    if "StopTimeout" in wanted.config:
        service["stop_grace_period"] = f"{wanted.config['StopTimeout']}s"
    if wanted.env:
        service["environment"] = wanted.env
    if labels := {key: value for key, value in wanted.labels.items() if not key.startswith(_OWN_LABELS)}:
        service["labels"] = labels
    if health := _health(wanted.health):
        service["healthcheck"] = health
    if wanted.bindings:
        service["ports"] = [published(port, binding) for port, binding in wanted.bindings]
    if wanted.exposed:
        service["expose"] = wanted.exposed
    _network(wanted, service, services)
    _host(wanted.host, service)
    _shared(wanted, service, services)
    if mounts := _mounts(wanted):
        service["volumes"] = mounts
    return service


def _network(wanted: Wanted, service: dict[str, Any], services: dict[str, str]) -> None:
    if not wanted.networks or wanted.plain_network:
        service["network_mode"] = _joined(wanted.mode, services) if not wanted.plain_network else "bridge"
        return
    chosen: dict[str, Any] = {}
    for name in _joined_networks(wanted):
        settings = wanted.networks[name]
        config = settings.get("IPAMConfig", {})
        given = {
            "aliases": settings.get("Aliases"), "ipv4_address": config.get("IPv4Address"),
            "ipv6_address": config.get("IPv6Address"), "link_local_ips": config.get("LinkLocalIPs"),
            "driver_opts": settings.get("DriverOpts"), "gw_priority": settings.get("GwPriority"),
            "mac_address": wanted.mac if name == wanted.mode else None,
        }  # fmt: skip
        chosen[name] = {key: value for key, value in given.items() if value}
        if name == wanted.mode and len(wanted.networks) > 1:
            chosen[name]["priority"] = 1000  # Compose starts the container with this one
    service["networks"] = chosen if any(chosen.values()) else list(chosen)


def _joined_networks(wanted: Wanted) -> list[str]:
    """Compose gives every network an alias, which the default bridge refuses."""
    return [name for name in wanted.networks if name != "bridge"]


def left_out(wanted: Wanted, containers: Sequence[Wanted]) -> list[str]:
    """What Compose has no words for."""
    options = {"AutoRemove": "--rm", "PublishAllPorts": "--publish-all", "VolumeDriver": "--volume-driver",
               "CpusetMems": "--cpuset-mems"}  # fmt: skip
    found = [flag for key, flag in options.items() if key in wanted.host]
    inside = {name for one in containers for name in (one.name, one.id)}
    for spec in wanted.host.get("VolumesFrom", ()):
        ref, _, mode = spec.partition(":")
        if mode and ref not in inside:
            found.append(f"the mode of --volumes-from {spec}")
    if "OnFailure" in wanted.health:
        found.append("--health-on-failure")
    if not all(_portable(option) for option in wanted.host.get("SecurityOpt", ())):
        found.append("a seccomp profile that is in no file")
    if wanted.networks and not wanted.plain_network and "bridge" in wanted.networks:
        found.append("the default bridge beside other networks")
    if wanted.mac and (wanted.plain_network or not wanted.networks):
        found.append("--mac-address without a network of one's own")
    return found + [f"--secret (id {secret})" for secret in wanted.secrets]


def _joined(mode: str, services: dict[str, str]) -> str:
    """``container:ID`` of a container that is in the file is ``service:NAME``."""
    if mode.startswith("container:") and mode[10:] in services:
        return f"service:{services[mode[10:]]}"
    return mode


def _shared(wanted: Wanted, service: dict[str, Any], services: dict[str, str]) -> None:
    """What it has from other containers: namespaces and mounts."""
    for key in ("ipc", "pid"):
        if key in service:
            service[key] = _joined(service[key], services)
    sources = []
    for spec in wanted.host.get("VolumesFrom", ()):
        ref, colon, mode = spec.partition(":")
        source = services.get(ref, f"container:{ref}")
        sources.append(source + colon + mode)
    if sources:
        service["volumes_from"] = sources


def _host(host: dict[str, Any], service: dict[str, Any]) -> None:
    for key, name in _SAME.items():
        if key in host:
            service[name] = host[key]
    if any(not _portable(option) for option in host.get("SecurityOpt", ())):
        service["security_opt"] = [option for option in host["SecurityOpt"] if _portable(option)]
    if "NanoCpus" in host:
        service["cpus"] = f"{host['NanoCpus'] / 1e9:.9f}".rstrip("0").rstrip(".")
    if policy := host.get("RestartPolicy"):
        count = policy.get("MaximumRetryCount")
        service["restart"] = f"{policy['Name']}:{count}" if count else policy["Name"]
    if log := host.get("LogConfig"):
        service["logging"] = {"driver": log["Type"]} | ({"options": log["Config"]} if log.get("Config") else {})
    if host.get("Tmpfs"):
        service["tmpfs"] = [f"{target}:{words}" if words else target for target, words in host["Tmpfs"].items()]
    if host.get("Ulimits"):
        service["ulimits"] = {u["Name"]: {"soft": u["Soft"], "hard": u["Hard"]} for u in host["Ulimits"]}
    if host.get("Devices"):
        service["devices"] = [device_value(device) for device in host["Devices"]]
    block: dict[str, Any] = {"weight": host["BlkioWeight"]} if "BlkioWeight" in host else {}
    for key, name in _RATES.items():
        if key in host:
            block[name] = [{k.lower(): v for k, v in one.items()} for one in host[key]]
    if block:
        service["blkio_config"] = block


def _portable(option: str) -> bool:
    """Whether a security option is no seccomp profile itself: Compose takes those from files alone."""
    return not option.startswith("seccomp={")


def _health(health: dict[str, Any]) -> dict[str, Any]:
    if (health.get("Test") or [])[:1] == ["NONE"]:
        return {"disable": True}
    result = {"test": health["Test"]} if "Test" in health else {}
    result |= {name: durations.write(health[key]) for key, name in _HEALTH.items() if key in health}
    return result | ({"retries": health["Retries"]} if "Retries" in health else {})


def _named_volumes(wanted: Wanted) -> list[str]:
    binds = [spec.split(":")[0] for spec in wanted.host.get("Binds", ())]
    mounts = [m.get("Source") or "" for m in wanted.host.get("Mounts", ()) if m.get("Type") == "volume"]
    return [name for name in (*binds, *mounts) if name and not name.startswith("/")]


def _mounts(wanted: Wanted) -> list[Any]:
    return [
        *wanted.host.get("Binds", ()),
        *wanted.volumes,
        *(_mount(mount) for mount in wanted.host.get("Mounts", ())),
    ]


def _mount(mount: dict[str, Any]) -> dict[str, Any]:
    """The long form."""
    bind, volume = mount.get("BindOptions") or {}, mount.get("VolumeOptions") or {}
    tmpfs, image = mount.get("TmpfsOptions") or {}, mount.get("ImageOptions") or {}
    options: dict[str, dict[str, Any]] = {
        "bind": {"propagation": bind.get("Propagation"), "create_host_path": bool(bind.get("CreateMountpoint")),
                 "recursive": _recursive(bind)},
        "volume": {"nocopy": volume.get("NoCopy"), "subpath": volume.get("Subpath"), "labels": volume.get("Labels")},
        "tmpfs": {"size": tmpfs.get("SizeBytes"), "mode": tmpfs.get("Mode")},
        "image": {"subpath": image.get("Subpath")},
    }  # fmt: skip
    kind = mount.get("Type") or "volume"
    result = {
        "type": kind, "source": mount.get("Source"), "target": mount["Target"], "read_only": mount.get("ReadOnly"),
        "consistency": mount.get("Consistency"),
        kind: {k: v for k, v in options.get(kind, {}).items() if v or k == "create_host_path"},
    }  # fmt: skip
    return {key: value for key, value in result.items() if value}


def _recursive(bind: dict[str, Any]) -> str:
    names = {"NonRecursive": "disabled", "ReadOnlyNonRecursive": "writable", "ReadOnlyForceRecursive": "readonly"}
    return next((word for key, word in names.items() if bind.get(key)), "")
