"""A container as the ``ketch run`` command line that would make it again."""

from __future__ import annotations

import csv
import io
import shlex
from typing import TYPE_CHECKING

from ketch.cli.recreate.configuration import Wanted, published
from ketch.notation import durations, sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

# field of HostConfig → flag; how its value is written is told by its type
_SIMPLE = {
    "CapAdd": "cap-add", "CapDrop": "cap-drop", "CgroupParent": "cgroup-parent", "CgroupnsMode": "cgroupns",
    "CpuPeriod": "cpu-period", "CpuQuota": "cpu-quota", "CpuRealtimePeriod": "cpu-rt-period",
    "CpuRealtimeRuntime": "cpu-rt-runtime", "CpuShares": "cpu-shares", "CpusetCpus": "cpuset-cpus",
    "CpusetMems": "cpuset-mems", "BlkioWeight": "blkio-weight", "DeviceCgroupRules": "device-cgroup-rule",
    "Dns": "dns", "DnsOptions": "dns-option", "DnsSearch": "dns-search", "ExtraHosts": "add-host",
    "GroupAdd": "group-add", "IpcMode": "ipc", "Isolation": "isolation", "Links": "link", "Memory": "memory",
    "MemoryReservation": "memory-reservation", "MemorySwap": "memory-swap", "MemorySwappiness": "memory-swappiness",
    "OomKillDisable": "oom-kill-disable", "OomScoreAdj": "oom-score-adj", "PidMode": "pid", "PidsLimit": "pids-limit",
    "Privileged": "privileged", "PublishAllPorts": "publish-all", "ReadonlyRootfs": "read-only", "Runtime": "runtime",
    "SecurityOpt": "security-opt", "ShmSize": "shm-size", "UTSMode": "uts", "UsernsMode": "userns",
    "VolumeDriver": "volume-driver", "VolumesFrom": "volumes-from", "AutoRemove": "rm", "Init": "init",
    "Annotations": "annotation", "StorageOpt": "storage-opt", "Sysctls": "sysctl", "Binds": "volume",
}  # fmt: skip
_SIZES = ("Memory", "MemoryReservation", "MemorySwap", "ShmSize")
_CONFIG = {
    "Hostname": "hostname", "Domainname": "domainname", "User": "user", "WorkingDir": "workdir",
    "StopSignal": "stop-signal", "StopTimeout": "stop-timeout",
}  # fmt: skip
_HEALTH = {
    "Interval": "health-interval", "Timeout": "health-timeout", "StartPeriod": "health-start-period",
    "StartInterval": "health-start-interval",
}  # fmt: skip
_RATES = {
    "BlkioDeviceReadBps": "device-read-bps", "BlkioDeviceWriteBps": "device-write-bps",
    "BlkioDeviceReadIOps": "device-read-iops", "BlkioDeviceWriteIOps": "device-write-iops",
    "BlkioWeightDevice": "blkio-weight-device",
}  # fmt: skip
_MOUNT_OPTIONS: dict[str, dict[str, str]] = {
    "BindOptions": {"Propagation": "bind-propagation", "CreateMountpoint": "bind-create-src", "IDMap": "idmap"},
    "VolumeOptions": {"NoCopy": "volume-nocopy", "Subpath": "volume-subpath"},
    "TmpfsOptions": {"SizeBytes": "tmpfs-size"},
    "ImageOptions": {"Subpath": "image-subpath"},
}


def command_line(wanted: Wanted) -> str:
    """Quoted for a POSIX shell."""
    return shlex.join(words(wanted))


def words(wanted: Wanted) -> list[str]:
    """The command's words, from ``ketch`` on."""
    result = ["ketch", "run"]

    def flag(name: str, value: str | None = None) -> None:
        """A value that looks like a flag is no trouble: it belongs to its flag, whatever it looks like."""
        if value is None:
            result.append(f"--{name}")
        else:
            result.extend((f"--{name}", value))

    _streams(wanted, flag)
    flag("name", wanted.name)
    for key, name in _CONFIG.items():
        if key in wanted.config:
            flag(name, str(wanted.config[key]))
    for item in wanted.env:
        flag("env", item)
    for name, value in wanted.labels.items():
        flag("label", f"{name}={value}")
    _network(wanted, flag)
    for port, binding in wanted.bindings:
        flag("publish", published(port, binding))
    for port in wanted.exposed:
        flag("expose", port)
    _host(wanted.host, flag)
    for target in wanted.volumes:
        flag("volume", target)
    for secret in wanted.secrets:
        flag("secret", f"id={secret},src=SOURCE_OF_{secret}")
    _health(wanted.health, flag)
    command = wanted.command
    if wanted.entrypoint is not None:  # the flag takes one word, the others go before the command
        flag("entrypoint", wanted.entrypoint[0] if wanted.entrypoint else "")
        command = [*wanted.entrypoint[1:], *command]
    return [*result, wanted.image, *command]


def _streams(wanted: Wanted, flag: Callable[..., None]) -> None:
    config = wanted.config
    attached = [name for name in ("stdin", "stdout", "stderr") if config.get(f"Attach{name.capitalize()}")]
    if not attached:
        flag("detach")
    elif {"stdout", "stderr"} - set(attached) or ("stdin" in attached) != bool(config.get("OpenStdin")):
        for name in attached:
            flag("attach", name)
    if config.get("OpenStdin"):
        flag("interactive")
    if config.get("Tty"):
        flag("tty")


def _network(wanted: Wanted, flag: Callable[..., None]) -> None:
    mode = "bridge" if wanted.mode == "default" else wanted.mode
    first = wanted.networks.get(mode, {})
    others = {name: settings for name, settings in wanted.networks.items() if name != mode}
    if set(first) <= {"Aliases", "IPAMConfig", "Links"}:
        if mode != "bridge" or others:
            flag("network", mode)
        for alias in first.get("Aliases", ()):
            flag("network-alias", alias)
        config = first.get("IPAMConfig", {})
        for key, name in (("IPv4Address", "ip"), ("IPv6Address", "ip6")):
            if config.get(key):
                flag(name, config[key])
        for address in config.get("LinkLocalIPs") or ():
            flag("link-local-ip", address)
    else:
        flag("network", _network_value(mode, first))
    for name, settings in others.items():
        flag("network", _network_value(name, settings))
    for link in first.get("Links", ()):
        flag("link", link)
    if wanted.mac:
        flag("mac-address", wanted.mac)


def _network_value(name: str, settings: dict[str, Any]) -> str:
    """The long form of ``--network``."""
    if not settings:
        return name
    config = settings.get("IPAMConfig", {})
    items = [f"name={name}", *(f"alias={alias}" for alias in settings.get("Aliases", ()))]
    items += [f"{key}={config[field]}" for key, field in (("ip", "IPv4Address"), ("ip6", "IPv6Address"))
              if config.get(field)]  # fmt: skip
    items += [f"link-local-ip={address}" for address in config.get("LinkLocalIPs") or ()]
    items += [f"driver-opt={key}={value}" for key, value in settings.get("DriverOpts", {}).items()]
    if "GwPriority" in settings:
        items.append(f"gw-priority={settings['GwPriority']}")
    return ",".join(items)


def _host(host: dict[str, Any], flag: Callable[..., None]) -> None:
    for key, name in _SIMPLE.items():
        if key in host:
            for value in _values(key, host[key]):
                flag(name, value)
    if host.get("Init") is False:
        flag("init=false")
    if "NanoCpus" in host:
        flag("cpus", f"{host['NanoCpus'] / 1e9:.9f}".rstrip("0").rstrip("."))
    if policy := host.get("RestartPolicy"):
        count = policy.get("MaximumRetryCount")
        flag("restart", f"{policy['Name']}:{count}" if count else policy["Name"])
    if log := host.get("LogConfig"):
        if log["Type"] not in ("", "json-file"):
            flag("log-driver", log["Type"])
        for key, value in (log.get("Config") or {}).items():
            flag("log-opt", f"{key}={value}")
    for mount in host.get("Mounts", ()):
        flag("mount", mount_value(mount))
    for target, options in host.get("Tmpfs", {}).items():
        flag("tmpfs", f"{target}:{options}" if options else target)
    for limit in host.get("Ulimits", ()):
        soft, hard = limit["Soft"], limit["Hard"]
        flag("ulimit", f"{limit['Name']}={soft}" + (f":{hard}" if hard != soft else ""))
    for device in host.get("Devices", ()):
        flag("device", device_value(device))
    for key, name in _RATES.items():
        for one in host.get(key, ()):
            flag(name, f"{one['Path']}:{one.get('Rate') or one.get('Weight')}")


def _values(key: str, value: Any) -> Iterator[str | None]:
    """A field's values as texts; None for a switch that is on."""
    if value is True:
        yield None
    elif value is False:
        return
    elif isinstance(value, dict):
        yield from (f"{name}={text}" for name, text in value.items())
    elif isinstance(value, list):
        yield from map(str, value)
    else:
        yield sizes.write(value) if key in _SIZES else str(value)


def device_value(device: dict[str, str]) -> str:
    """``/dev/x[:/dev/y][:rwm]``."""
    host, inside, access = (device.get(k) or "" for k in ("PathOnHost", "PathInContainer", "CgroupPermissions"))
    if access not in ("", "rwm"):
        return f"{host}:{inside or host}:{access}"
    return f"{host}:{inside}" if inside not in ("", host) else host


def mount_value(mount: dict[str, Any]) -> str:
    """``type=bind,source=…,target=…``, quoted as CSV."""
    kind = mount.get("Type") or "volume"
    fields = [f"type={kind}"]
    fields += [f"source={mount['Source']}"] if mount.get("Source") else []
    fields.append(f"target={mount['Target']}")
    fields += ["readonly"] if mount.get("ReadOnly") else []
    fields += [f"consistency={mount['Consistency']}"] if mount.get("Consistency") else []
    for group, names in _MOUNT_OPTIONS.items():
        options = mount.get(group) or {}
        fields += [_mount_field(name, options[key]) for key, name in names.items() if options.get(key)]
    bind = mount.get("BindOptions") or {}
    for key, word in (
        ("NonRecursive", "disabled"), ("ReadOnlyNonRecursive", "writable"), ("ReadOnlyForceRecursive", "readonly")
    ):  # fmt: skip
        fields += [f"bind-recursive={word}"] if bind.get(key) else []
    volume = mount.get("VolumeOptions") or {}
    fields += [f"volume-label={key}={value}" for key, value in (volume.get("Labels") or {}).items()]
    driver = volume.get("DriverConfig") or {}
    fields += [f"volume-driver={driver['Name']}"] if driver.get("Name") else []
    fields += [f"volume-opt={key}={value}" for key, value in (driver.get("Options") or {}).items()]
    tmpfs = mount.get("TmpfsOptions") or {}
    fields += [f"tmpfs-mode={tmpfs['Mode']:o}"] if tmpfs.get("Mode") else []
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(fields)
    return text.getvalue()


def _mount_field(name: str, value: Any) -> str:
    return name if value is True else f"{name}={value}"


def _health(health: dict[str, Any], flag: Callable[..., None]) -> None:
    test = health.get("Test") or []
    if test[:1] == ["NONE"]:
        flag("no-healthcheck")
        return
    if test[:1] == ["CMD-SHELL"]:
        flag("health-cmd", test[1])
    elif test:
        flag("health-cmd", shlex.join(test[1:]))
    for key, name in _HEALTH.items():
        if key in health:
            flag(name, durations.write(health[key]))
    if "Retries" in health:
        flag("health-retries", str(health["Retries"]))
    if "OnFailure" in health:
        flag("health-on-failure", health["OnFailure"])
