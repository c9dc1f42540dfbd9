"""The flags of ``run`` and ``create`` → the three configurations of ``POST /containers/create``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.cli.errors import UsageError
from ketch.cli.options import checks as flag_checks
from ketch.cli.options import key_value, mount_flags, network_flags, quantities, secret_flags, wait_flag
from ketch.cli.options.flags import FlagSet
from ketch.errors import InvalidArgument
from ketch.notation import digits

if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.options.flags import Options

_LISTS = (
    "add-host annotation attach:a blkio-weight-device cap-add cap-drop device device-cgroup-rule device-read-bps "
    "device-read-iops device-write-bps device-write-iops dns dns-option dns-search env:e env-file "
    "expose group-add label:l label-file link link-local-ip log-opt mount net network network-alias publish:p "
    "secret security-opt storage-opt sysctl tmpfs ulimit volume:v volumes-from"
)
_STRINGS = (
    "cgroup-parent cgroupns cidfile cpus cpuset-cpus cpuset-mems domainname entrypoint gpus health-cmd "
    "health-interval health-on-failure health-start-interval health-start-period health-timeout hostname:h ip ip6 ipc "
    "isolation "
    "log-driver mac-address memory:m memory-reservation memory-swap name pid platform pull restart runtime "
    "shm-size stop-signal user:u userns uts volume-driver workdir:w"
)
_INTS = (
    "blkio-weight cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares:c health-retries memory-swappiness "
    "oom-score-adj pids-limit stop-timeout"
)
_BOOLS = (
    "disable-content-trust init interactive:i no-healthcheck oom-kill-disable privileged publish-all:P quiet:q "
    "read-only rm tty:t"
)


def flag_set(command: str, summary: str) -> FlagSet:
    """All flags of Docker's ``run`` (``create`` lacks a few)."""
    spec = FlagSet(command, f"ketch {command} [OPTIONS] IMAGE [COMMAND] [ARG...]", summary, interspersed=False)
    for words, add in ((_LISTS, spec.list), (_STRINGS, spec.string), (_INTS, spec.int), (_BOOLS, spec.bool)):
        for word in words.split():
            name, _, short = word.partition(":")
            add(name, short)
    if command == "run":
        spec.bool("detach", "d", "run in the background and print the container's id")
        spec.string("detach-keys", "", "keys that detach")
        spec.bool("sig-proxy", "", "pass signals on to the process", default=True)
        wait_flag.add_flag(spec)
    return spec


def body(opts: Options, image: str, command: list[str]) -> dict[str, Any]:
    """The request's body (UsageError for what cannot be understood)."""
    try:
        return _body(opts, image, command)
    except UsageError:
        raise
    except InvalidArgument as e:
        raise UsageError(e.message, hint=e.hint) from e


def _body(opts: Options, image: str, command: list[str]) -> dict[str, Any]:
    flag_checks.check(opts)
    config: dict[str, Any] = {
        "Image": image,
        "Cmd": command or None,
        "Tty": opts["tty"],
        "OpenStdin": opts["interactive"],
        "Env": key_value.environment(opts),
        "Labels": key_value.labels(opts),
        "Hostname": opts["hostname"],
        "Domainname": opts["domainname"],
        "User": opts["user"],
        "WorkingDir": opts["workdir"],
        "StopSignal": opts["stop-signal"],
        "StopTimeout": opts["stop-timeout"],
        "MacAddress": opts["mac-address"],
    }
    if "entrypoint" in opts.given:
        config["Entrypoint"] = [opts["entrypoint"]]
    if health := _health(opts):
        config["Healthcheck"] = health
    exposed, bindings = _ports(opts)
    config["ExposedPorts"] = exposed
    binds, volumes = volume_flags(opts)
    config["Volumes"] = volumes
    host = {**_host(opts), "Binds": binds, "PortBindings": bindings}
    host["NetworkMode"], endpoints = network_flags.endpoints(opts)
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints}}


def _host(opts: Options) -> dict[str, Any]:
    host: dict[str, Any] = {
        "AutoRemove": opts["rm"],
        "Privileged": opts["privileged"],
        "PublishAllPorts": opts["publish-all"],
        "ReadonlyRootfs": opts["read-only"],
        "Mounts": [mount_flags.parse(text) for text in opts["mount"]] or None,
        "Secrets": [secret_flags.parse(text) for text in opts["secret"]] or None,
        "Tmpfs": {t.partition(":")[0]: t.partition(":")[2] for t in opts["tmpfs"]} or None,
        "RestartPolicy": restart_policy(opts["restart"]),
        "LogConfig": {"Type": opts["log-driver"], "Config": _pairs(opts["log-opt"], "log-opt")},
        "Annotations": _pairs(opts["annotation"], "annotation") or None,
        "StorageOpt": _pairs(opts["storage-opt"], "storage-opt") or None,
        "Sysctls": _pairs(opts["sysctl"], "sysctl") or None,
        "SecurityOpt": [_security(t) for t in opts["security-opt"] if t != "systempaths=unconfined"] or None,
        "Ulimits": [flag_checks.ulimit(text) for text in opts["ulimit"]],
        "Devices": [_device(text) for text in opts["device"]] or None,
        "ContainerIDFile": opts["cidfile"],
        "OomKillDisable": opts["oom-kill-disable"],
        "MemorySwappiness": -1,
        "PidsLimit": 0,
        "CapAdd": flag_checks.capabilities(opts["cap-add"]),
        "CapDrop": flag_checks.capabilities(opts["cap-drop"]),
        "Init": opts["init"] if "init" in opts.given else None,
        "ExtraHosts": [_extra_host(text) for text in opts["add-host"]] or None,
    }
    if "systempaths=unconfined" in opts["security-opt"]:  # nothing masked, nothing read-only
        host["MaskedPaths"] = host["ReadonlyPaths"] = []
    for key, flag in (
        ("DeviceCgroupRules", "device-cgroup-rule"), ("Dns", "dns"),
        ("DnsOptions", "dns-option"), ("DnsSearch", "dns-search"), ("GroupAdd", "group-add"), ("Links", "link"),
        ("VolumesFrom", "volumes-from"),
    ):  # fmt: skip
        host[key] = opts[flag] or None
    for key, flag in (
        ("CgroupParent", "cgroup-parent"), ("CgroupnsMode", "cgroupns"), ("CpusetCpus", "cpuset-cpus"),
        ("CpusetMems", "cpuset-mems"), ("IpcMode", "ipc"), ("Isolation", "isolation"), ("PidMode", "pid"),
        ("Runtime", "runtime"), ("UTSMode", "uts"), ("UsernsMode", "userns"), ("VolumeDriver", "volume-driver"),
    ):  # fmt: skip
        host[key] = opts[flag]
    host.update(limits(opts))
    for key, flag in (
        ("BlkioDeviceReadBps", "device-read-bps"), ("BlkioDeviceWriteBps", "device-write-bps"),
        ("BlkioDeviceReadIOps", "device-read-iops"), ("BlkioDeviceWriteIOps", "device-write-iops"),
        ("BlkioWeightDevice", "blkio-weight-device"),
    ):  # fmt: skip
        host[key] = [_device_limit(text, flag) for text in opts[flag]]
    return host


def _device_limit(text: str, flag: str) -> dict[str, Any]:
    """``/dev/sda:10mb``, ``/dev/sda:1000`` → the device and its rate or weight."""
    path, colon, value = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise InvalidArgument(f"invalid --{flag} `{text}`", hint="write /dev/DEVICE:NUMBER")
    number = quantities.size(value, f"--{flag}")
    return {"Path": path, "Weight" if "weight" in flag else "Rate": number}


def limits(opts: Options) -> dict[str, Any]:
    """The limits that were given; those that a command has no flags for are left out."""
    result: dict[str, Any] = {}
    for key, flag in (
        ("BlkioWeight", "blkio-weight"), ("CpuPeriod", "cpu-period"), ("CpuQuota", "cpu-quota"),
        ("CpuShares", "cpu-shares"), ("CpuRealtimePeriod", "cpu-rt-period"), ("CpuRealtimeRuntime", "cpu-rt-runtime"),
        ("MemorySwappiness", "memory-swappiness"), ("OomScoreAdj", "oom-score-adj"),
        ("PidsLimit", "pids-limit"),
    ):  # fmt: skip
        if flag in opts and opts[flag] is not None:
            result[key] = opts[flag]
    for key, flag in (("Memory", "memory"), ("MemoryReservation", "memory-reservation"), ("ShmSize", "shm-size")):
        if flag in opts and opts[flag]:
            result[key] = quantities.size(opts[flag], f"--{flag}")
    if opts["memory-swap"]:
        unlimited = opts["memory-swap"] == "-1"
        result["MemorySwap"] = -1 if unlimited else quantities.size(opts["memory-swap"], "--memory-swap")
    if opts["cpus"]:
        try:
            result["NanoCpus"] = round(float(opts["cpus"]) * 1e9)
        except ValueError:
            raise InvalidArgument(f"invalid --cpus `{opts['cpus']}`: not a number", hint="use e.g. 1.5") from None
    return result


def _pairs(items: list[str], flag: str) -> dict[str, str]:
    result = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not key or not equals and flag == "storage-opt":
            raise InvalidArgument(f"invalid --{flag} `{item}`", hint="write KEY=VALUE")
        result[key] = value
    return result


def restart_policy(text: str) -> dict[str, Any]:
    """``on-failure:3`` → the API's object (InvalidArgument)."""
    name, colon, count = text.partition(":")
    most = digits.whole(count) if colon else 0
    if most is None:
        raise InvalidArgument(f"invalid --restart `{text}`: maximum retry count must be an integer")
    return {"Name": name or "no", "MaximumRetryCount": most}


def _security(text: str) -> str:
    """A seccomp profile is sent by content, as the daemon may be elsewhere."""
    name, equals, value = text.partition("=")
    if name == "seccomp" and equals and value not in ("unconfined", "builtin") and not value.startswith("{"):
        try:
            with open(value, encoding="utf-8") as f:
                return f"seccomp={f.read()}"
        except OSError as e:
            raise InvalidArgument(f"opening seccomp profile ({value}) failed: {e.strerror}") from e
    return text


def _device(text: str) -> dict[str, str]:
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise InvalidArgument(f"bad format for path: {text}", hint="write --device HOST[:CONTAINER[:rwm]]")
    if len(parts) == 3 and not (parts[2] and set(parts[2]) <= set("rwm")):
        raise InvalidArgument(f"bad mode specified: {parts[2]}", hint="write --device HOST[:CONTAINER[:rwm]]")
    target, access = parts[0], "rwm"
    for part in parts[1:]:
        if part and set(part) <= set("rwm"):
            access = part
        else:
            target = part
    return {"PathOnHost": parts[0], "PathInContainer": target, "CgroupPermissions": access}


def _extra_host(text: str) -> str:
    name, separator, address = text.partition("=") if "=" in text else text.partition(":")
    if not separator or not name or not address:
        raise InvalidArgument(f'bad format for add-host: "{text}"', hint="write NAME:ADDRESS")
    return f"{name}:{address}"


def _health(opts: Options) -> dict[str, Any] | None:
    if opts["no-healthcheck"]:
        return {"Test": ["NONE"]}
    health: dict[str, Any] = {}
    if opts["health-cmd"]:
        health["Test"] = ["CMD-SHELL", opts["health-cmd"]]
    for key, flag in (
        ("Interval", "health-interval"), ("Timeout", "health-timeout"), ("StartPeriod", "health-start-period"),
        ("StartInterval", "health-start-interval"),
    ):  # fmt: skip
        if opts[flag]:
            health[key] = quantities.duration(opts[flag], f"--{flag}")
    if opts["health-retries"]:
        health["Retries"] = opts["health-retries"]
    if opts["health-on-failure"]:
        health["OnFailure"] = opts["health-on-failure"]
    return health or None


def _range(text: str, what: str) -> range:
    first, dash, last = text.partition("-")
    begin, end = digits.whole(first), digits.whole(last if dash else first)
    if begin is None or end is None:
        raise InvalidArgument(f"invalid {what} `{text}`: not a port")
    span = range(begin, end + 1)
    if not span or span[-1] > 65535:
        raise InvalidArgument(f"invalid {what} `{text}`: ports go from 1 to 65535")
    return span


def _ports(opts: Options) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    exposed: dict[str, Any] = {}
    for text in opts["expose"]:
        numbers, _, proto = text.partition("/")
        exposed.update({f"{n}/{proto or 'tcp'}": {} for n in _range(numbers, "--expose")})
    bindings: dict[str, Any] = {}
    for text in opts["publish"]:
        for port, binding in publish(text):
            exposed[port] = {}
            bindings.setdefault(port, []).append(binding)
    return exposed or None, bindings or None


def publish(text: str) -> list[tuple[str, dict[str, str]]]:
    """``[ip:][host[-host]:]container[-container][/proto]`` → (port, binding) pairs (InvalidArgument otherwise)."""
    spec, _, proto = text.partition("/")
    proto = (proto or "tcp").lower()
    if proto not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid --publish `{text}`: unknown protocol `{proto}`")
    address, host = "", ""
    if spec.startswith("["):
        address, bracket, rest = spec[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise InvalidArgument(f"invalid --publish `{text}`", hint="write [IPV6]:HOST:CONTAINER")
        spec = rest[1:]
        host, _, spec = spec.rpartition(":")
    else:
        parts = spec.split(":")
        if len(parts) > 3:
            raise InvalidArgument(f"invalid --publish `{text}`", hint="write [IP:][HOST:]CONTAINER[/PROTOCOL]")
        spec = parts[-1]
        host = parts[-2] if len(parts) > 1 else ""
        address = parts[0] if len(parts) == 3 else ""
    if address and not flag_checks.is_address(address):
        raise InvalidArgument(f"invalid IP address: {address}")
    inner = _range(spec, "--publish")
    if inner[0] == 0:
        raise InvalidArgument(f"invalid --publish `{text}`: port 0 cannot be published")
    if not host:
        return [(f"{n}/{proto}", {"HostIp": address, "HostPort": ""}) for n in inner]
    outer = _range(host, "--publish")
    if len(outer) != len(inner):
        if len(inner) != 1:
            raise InvalidArgument(f"invalid --publish `{text}`: the two ranges have different lengths")
        return [(f"{inner[0]}/{proto}", {"HostIp": address, "HostPort": host})]
    return [(f"{n}/{proto}", {"HostIp": address, "HostPort": str(o)}) for n, o in zip(inner, outer, strict=True)]


def volume_flags(opts: Options) -> tuple[list[str] | None, dict[str, Any] | None]:
    binds: list[str] = []
    volumes: dict[str, Any] = {}
    for text in opts["volume"]:
        if ":" not in text:
            volumes[text] = {}
            continue
        source, _, rest = text.partition(":")
        if source.startswith((".", "~")) or (os.sep in source and not source.startswith("/")):
            source = os.path.abspath(os.path.expanduser(source))
        binds.append(f"{source}:{rest}")
    return binds or None, volumes or None
