"""A container in Docker's JSON: the row of a list and the answer of inspect."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

import msgspec

from ketch.engine.model import pending
from ketch.engine.model.namespaces import nesting
from ketch.engine.model.records import EndpointSettings, HealthStatus, Status
from ketch.network.ports import requests as ports
from ketch.notation import ages, times
from ketch.runtime import defaults
from ketch.runtime.cgroups import common

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.engine import Engine
    from ketch.engine.model.namespaces.user import IdRange, UserNamespace
    from ketch.engine.model.records import Container, Health, MountPoint
    from ketch.notation.api_objects import ApiObject


def status_text(container: Container) -> str:
    """``Up 5 minutes``, ``Exited (0) 2 hours ago``, ``Created`` …"""
    state, now = container.state, time.time_ns()
    if state.running:
        text = f"Up {ages.age((now - state.started_at) / 1e9)}"
        if state.status is Status.PAUSED:
            return text + " (Paused)"
        if state.health is None:
            return text
        starting = state.health.status is HealthStatus.STARTING
        return text + (" (health: starting)" if starting else f" ({state.health.status})")
    since = ages.age((now - state.finished_at) / 1e9)
    if state.status is Status.RESTARTING:
        return f"Restarting ({state.exit_code}) {since} ago"
    if state.status is Status.REMOVING:
        return "Removal In Progress"
    if state.status is Status.DEAD:
        return "Dead"
    if not state.finished_at:
        return "Created"
    return f"Exited ({state.exit_code}) {since} ago"


def row(engine: Engine, container: Container, sizes: tuple[int, int] | None = None) -> ApiObject:
    """One entry of ``GET /containers/json``."""
    # (Quotes in a word stay as they are: it is to be read, not to be run.)
    command = " ".join([container.path, *(f"'{word}'" if " " in word else word for word in container.args)])
    answer: ApiObject = {
        "Id": container.id,
        "Names": [f"/{container.name}", *engine.containers.details.link_names(container)],
        "Image": _image_shown(engine, container),
        "ImageID": container.image_id,
        "Command": command,
        "Created": container.created // 1_000_000_000,
        "Ports": port_rows(container),
        "Labels": container.config.labels or {},
        "State": container.state.status,
        "Status": status_text(container),
        "HostConfig": {"NetworkMode": container.host.network_mode},
        "NetworkSettings": {"Networks": _brief_networks(container)},
        "Mounts": [_mount(m) for m in container.mounts],
    }
    if container.host.annotations:
        answer["HostConfig"]["Annotations"] = container.host.annotations
    if sizes is not None:
        if sizes[0]:
            answer["SizeRw"] = sizes[0]
        answer["SizeRootFs"] = sizes[1]
    return answer


def _image_shown(engine: Engine, container: Container) -> str:
    """The name it was created from, or the id when that name means another image now."""
    from ketch.errors import KetchError

    try:
        if engine.images.get(container.image_ref).id == container.image_id:
            return container.image_ref
    except KetchError:
        pass  # the name is gone; the id still tells
    return container.image_id


def port_rows(container: Container) -> list[ApiObject]:
    """The ports of a running container: those that are published, and those that are exposed only."""
    rows: list[ApiObject] = []
    published = container.ports if container.state.running else {}
    for port, bindings in published.items():
        number, _, proto = port.partition("/")
        rows.extend(
            {"IP": b.host_ip, "PrivatePort": int(number), "PublicPort": int(b.host_port), "Type": proto}
            for b in bindings
        )
    for port in _exposed(container):
        number, _, proto = port.partition("/")
        if port not in published:
            rows.append({"PrivatePort": int(number), "Type": proto})
    return sorted(rows, key=lambda r: (r["PrivatePort"], r.get("PublicPort", 0)))


def _exposed(container: Container) -> list[str]:
    """The ports that a running container exposes to a network of its own: with `none` and `host` it exposes none."""
    if not container.state.running or not container.networks.keys() - {"none", "host"}:
        return []
    return list(ports.names(container.config.exposed_ports or ()))


def _mount(point: MountPoint) -> ApiObject:
    if point.type == "image":
        return {
            "Type": point.type,
            "Name": point.source,  # as it was asked for
            "Source": _newest_layer(point.layers),
            "Destination": point.destination,
            "Mode": point.mode,
            "RW": point.rw,
            "Propagation": "rprivate",
        }
    answer = {
        "Type": point.type,
        "Source": point.source,
        "Destination": point.destination,
        "Mode": point.mode,
        "RW": point.rw,
        "Propagation": point.propagation,
    }
    if point.type == "volume":
        answer.update(Name=point.name, Driver=point.driver)
    return answer


def _newest_layer(options: list[str]) -> str:
    """The directory of an image's newest layer, from the overlay options of its tree."""
    lowest = next((option for option in options if option.startswith("lowerdir=")), "lowerdir=")
    first = re.split(r"(?<!\\):", lowest.removeprefix("lowerdir="), maxsplit=1)[0]
    return first.replace("\\:", ":").replace("\\\\", "\\")


def _networks(container: Container) -> ApiObject:
    return {name: _endpoint(container, container.networks[name]) for name in sorted(container.networks)}


def _brief_networks(container: Container) -> ApiObject:
    """A container's networks as rows of a list have them: of what was asked for, the addresses alone."""
    asked = dict.fromkeys(("Links", "Aliases", "DriverOpts", "DNSNames"))
    return {name: endpoint | asked for name, endpoint in _networks(container).items()}


def _endpoint(container: Container, settings: EndpointSettings) -> ApiObject:
    return {
        "IPAMConfig": settings.ipam_config,
        "Links": settings.links,
        "Aliases": settings.aliases,
        "MacAddress": settings.mac_address,
        "DriverOpts": settings.driver_opts,
        "GwPriority": settings.gw_priority,
        "NetworkID": settings.network_id if container.state.started_at else "",
        "EndpointID": settings.endpoint_id,
        "Gateway": settings.gateway,
        "IPAddress": settings.ip_address,
        "IPPrefixLen": settings.ip_prefix_len,
        "IPv6Gateway": settings.ipv6_gateway,
        "GlobalIPv6Address": settings.global_ipv6_address,
        "GlobalIPv6PrefixLen": settings.global_ipv6_prefix_len,
        "DNSNames": settings.dns_names,
    }


def _state(container: Container) -> ApiObject:
    state = container.state
    answer = {
        "Status": state.status,
        "Running": state.up,
        "Paused": state.status is Status.PAUSED,
        "Restarting": state.status is Status.RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": state.status is Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": times.rfc3339_or_never(state.started_at),
        "FinishedAt": times.rfc3339_or_never(state.finished_at),
    }
    if state.health is not None:
        answer["Health"] = _health(state.health)
    return answer


def _health(health: Health) -> ApiObject:
    results = [
        {
            "Start": times.rfc3339_or_never(r.start),
            "End": times.rfc3339_or_never(r.end),
            "ExitCode": r.exit_code,
            "Output": r.output,
        }
        for r in health.log
    ]
    return {"Status": health.status, "FailingStreak": health.failing_streak, "Log": results}


def _config(container: Container) -> ApiObject:
    config: ApiObject = msgspec.to_builtins(container.config)
    own = os.uname().nodename if container.host.network.is_host else container.id[:12]
    config["Hostname"] = config["Hostname"] or own
    for optional in (
        "Healthcheck",
        "Shell",
        "ArgsEscaped",
        "NetworkDisabled",
        "MacAddress",
        "StopSignal",
    ):
        if not config.get(optional):
            config.pop(optional, None)
    if config["StopTimeout"] is None:
        del config["StopTimeout"]
    if config.get("Healthcheck"):
        config["Healthcheck"] = {name: value for name, value in config["Healthcheck"].items() if value}
    if not config.get("ExposedPorts"):
        config.pop("ExposedPorts", None)
    config["Labels"] = config["Labels"] or {}
    config["Env"] = config["Env"] or []
    return config


def _host_config(container: Container, secrets: list[ApiObject]) -> ApiObject:
    host: ApiObject = msgspec.to_builtins(container.host)
    host["Secrets"] = secrets
    host["RestartPolicy"]["Name"] = host["RestartPolicy"]["Name"] or "no"
    # docker-py reads the logs of a container only when this says json-file (or journald).
    host["LogConfig"] = {"Type": host["LogConfig"]["Type"] or "json-file", "Config": host["LogConfig"]["Config"] or {}}
    host["ShmSize"] = host["ShmSize"] or 64 << 20
    host["Runtime"] = host["Runtime"] or "ketch"
    host["IpcMode"] = host["IpcMode"] or "private"
    host["CgroupnsMode"] = host["CgroupnsMode"] or "private"
    host["ConsoleSize"] = host["ConsoleSize"] or [0, 0]
    for name in ("Mounts", "Tmpfs", "Sysctls", "Init", "Annotations", "StorageOpt", "Secrets"):
        if not host.get(name):
            host.pop(name, None)
    if "Mounts" in host:
        host["Mounts"] = [_given(mount) for mount in host["Mounts"]]
    # Clients say "the default" in several ways, dockerd answers in one.
    host["PidsLimit"] = max(host["PidsLimit"], 0) if host["PidsLimit"] else None  # -1 comes from `update`
    if host["OomKillDisable"] is None and common.layout().version == 1:
        host["OomKillDisable"] = False
    host["MemorySwappiness"] = None if host["MemorySwappiness"] == -1 else host["MemorySwappiness"]
    if not host["Privileged"] and not _is_unmasked(host["SecurityOpt"] or ()):
        for name, usual in (("MaskedPaths", defaults.MASKED_PATHS), ("ReadonlyPaths", defaults.READONLY_PATHS)):
            host[name] = list(usual) if host[name] is None else host[name]
    return host


def _is_unmasked(options: Sequence[str]) -> bool:
    return "systempaths=unconfined" in options or nesting.asked_for(options)


def _given(mount: ApiObject) -> ApiObject:
    """A mount as requested; empty options are kept."""
    return {k: v for k, v in mount.items() if k in ("Type", "Target") or v not in (None, "", False)}


def inspect(engine: Engine, container: Container, sizes: tuple[int, int] | None = None) -> ApiObject:
    """The body of ``GET /containers/{id}/json``."""
    details = engine.containers.details
    directory = details.directory(container)
    begun = bool(container.state.started_at or container.state.error)  # dockerd makes these files at the first start
    answer: ApiObject = {
        "Id": container.id,
        "Created": times.rfc3339_or_never(container.created),
        "Path": container.path,
        "Args": container.args,
        "State": _state(container),
        "Image": container.image_id,
        "ResolvConfPath": os.path.join(directory, "resolv.conf") if begun else "",
        "HostnamePath": os.path.join(directory, "hostname") if begun else "",
        "HostsPath": os.path.join(directory, "hosts") if begun else "",
        "LogPath": details.log_path(container) if begun else "",
        "Name": f"/{container.name}",
        "RestartCount": container.restart_count,
        "Driver": details.storage_driver(container),
        "Platform": container.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": container.apparmor_profile,
        "ExecIDs": engine.execs.shown_of(container.id) or None,
        "HostConfig": _host_config(container, details.secrets(container)) | {"Links": details.own_links(container)},
        "GraphDriver": {"Name": details.storage_driver(container), "Data": details.root_directories(container)},
        "Mounts": [_mount(m) for m in container.mounts],
        "Config": _config(container),
        "NetworkSettings": _network_settings(container),
    }
    if waiting := pending.shown(container):
        answer["Pending"] = waiting
    if container.user_namespace is not None:
        answer["HostConfig"]["IDMappings"] = _id_mappings(container.user_namespace)
    if sizes is not None:
        answer["SizeRw"], answer["SizeRootFs"] = sizes
    return answer


def _id_mappings(namespace: UserNamespace) -> ApiObject:
    """Ids inside, ids of the machine, how many: as Podman's inspect has them."""

    def shown(ranges: Sequence[IdRange]) -> list[str]:
        return [f"{part.inside}:{part.outside}:{part.size}" for part in ranges]

    return {"UidMap": shown(namespace.uids), "GidMap": shown(namespace.gids)}


def _network_settings(container: Container) -> ApiObject:
    running = container.state.running
    own = running and container.host.network.container is None
    shown: ApiObject = {}
    if running:
        shown = dict.fromkeys(_exposed(container))
        shown.update({port: msgspec.to_builtins(bindings) for port, bindings in container.ports.items()})
    bridge = container.networks.get("bridge") or EndpointSettings()
    return {
        "Bridge": "",
        "SandboxID": container.id if own else "",
        "SandboxKey": f"/proc/{container.state.pid}/ns/net" if own else "",
        "Ports": shown,
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": bridge.endpoint_id,
        "Gateway": bridge.gateway,
        "GlobalIPv6Address": bridge.global_ipv6_address,
        "GlobalIPv6PrefixLen": bridge.global_ipv6_prefix_len,
        "IPAddress": bridge.ip_address,
        "IPPrefixLen": bridge.ip_prefix_len,
        "IPv6Gateway": bridge.ipv6_gateway,
        "MacAddress": bridge.mac_address,
        "Networks": _networks(container),
    }
