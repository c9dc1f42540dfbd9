"""Containers as a Compose file that recreates them; existing networks and volumes are external."""

from __future__ import annotations

from ketch.cli.options import fields, ports, table, value_types
from ketch.notation.namespace_modes import container_of, of_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ketch.cli.recreate.create_request import CreateRequest

    ComposeObject = dict[str, Any]  # a part of a Compose file: compose-spec says what is in it

_OWN_LABELS = "com.docker.compose."


def document(containers: Sequence[CreateRequest]) -> ComposeObject:
    """The file's content: services, and the networks and volumes that they name."""
    names = {request.id: _service_name(request, containers) for request in containers}
    services: ComposeObject = {}
    networks: ComposeObject = {}
    volumes: ComposeObject = {}
    for request in containers:
        services[names[request.id]] = _service(request, {c.name: names[c.id] for c in containers} | names)
        networks |= {} if request.plain_network else dict.fromkeys(_joined_networks(request), {})
        volumes |= {name: {} for name in _named_volumes(request)}
    parts = {"services": services, "networks": _external(networks), "volumes": _external(volumes)}
    return {key: _escaped(value) for key, value in parts.items() if value}


def _external(names: ComposeObject) -> ComposeObject:
    return {name: {"name": name, "external": True} for name in names}


def _service_name(request: CreateRequest, containers: Sequence[CreateRequest]) -> str:
    """A service's name: Compose's own, unless it is taken."""
    label = f"{_OWN_LABELS}service"
    name = request.labels.get(label)
    return name if name and sum(c.labels.get(label) == name for c in containers) == 1 else request.name


def _escaped(value: Any) -> Any:
    """Text with ``$`` escaped as ``$$`` (Compose substitutes ``$NAME``)."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _service(request: CreateRequest, services: dict[str, str]) -> ComposeObject:
    service: ComposeObject = {"image": request.image, "container_name": request.name}
    for option in table.OPTIONS:
        value = request.fields.get(option.field)
        if option.flag in _TOGETHER:
            together = _TOGETHER[option.flag](request, services)
            service |= {key: found for key, found in together.items() if found or key == "entrypoint"}
        elif option.service and value is not None:
            fields.put(service, option.service, option.type.service(value))
    return service


def _program(request: CreateRequest, _services: dict[str, str]) -> ComposeObject:
    command = {"command": request.command}
    return command if request.entrypoint is None else {"entrypoint": request.entrypoint, **command}


def _labels(request: CreateRequest, _services: dict[str, str]) -> ComposeObject:
    return {"labels": {key: value for key, value in request.labels.items() if not key.startswith(_OWN_LABELS)}}


def _network(request: CreateRequest, services: dict[str, str]) -> ComposeObject:
    if request.plain_network:
        return {"network_mode": "bridge"}
    if not request.networks:
        return {"network_mode": _joined(request.mode, services)}
    chosen = {name: _endpoint(request, name) for name in _joined_networks(request)}
    return {"networks": chosen if any(chosen.values()) else list(chosen)}


def _endpoint(request: CreateRequest, name: str) -> ComposeObject:
    settings = request.networks[name]
    config = settings.get("IPAMConfig", {})
    given = {
        "aliases": settings.get("Aliases"),
        "ipv4_address": config.get("IPv4Address"),
        "ipv6_address": config.get("IPv6Address"),
        "link_local_ips": config.get("LinkLocalIPs"),
        "driver_opts": settings.get("DriverOpts"),
        "gw_priority": settings.get("GwPriority"),
        "mac_address": request.mac if name == request.mode else None,
    }
    if name == request.mode and len(request.networks) > 1:
        given["priority"] = 1000  # Compose starts the container with this one
    return {key: value for key, value in given.items() if value}


def _joined_networks(request: CreateRequest) -> list[str]:
    """The networks of a service; the default bridge refuses the aliases that Compose adds."""
    return [name for name in request.networks if name != "bridge"]


def _joined(mode: str, services: dict[str, str]) -> str:
    """A namespace mode, with ``service:NAME`` for containers that are in the file."""
    joined = services.get(container_of(mode) or "")
    return f"service:{joined}" if joined else mode


def _volumes_from(request: CreateRequest, services: dict[str, str]) -> ComposeObject:
    sources = []
    for spec in request.fields.get("HostConfig.VolumesFrom", ()):
        ref, colon, mode = spec.partition(":")
        sources.append(services.get(ref, of_container(ref)) + colon + mode)
    return {"volumes_from": sources}


def _log(request: CreateRequest, _services: dict[str, str]) -> ComposeObject:
    log = request.fields.get("HostConfig.LogConfig")
    if not log:
        return {}
    return {"logging": {"driver": log["Type"]} | ({"options": log["Config"]} if log.get("Config") else {})}


def _no_health(request: CreateRequest, _services: dict[str, str]) -> ComposeObject:
    return {"healthcheck": {"disable": True}} if request.fields.get("Healthcheck.Test") == ["NONE"] else {}


# What is not the value of one field, or depends on the other containers in the file.
_TOGETHER: dict[str, Callable[[CreateRequest, dict[str, str]], ComposeObject]] = {
    "entrypoint": _program,
    "env": lambda request, _: {"environment": request.env},
    "label": _labels,
    "publish": lambda request, _: {"ports": [ports.text_of(*published) for published in request.bindings]},
    "expose": lambda request, _: {"expose": request.exposed},
    "network": _network,
    "ipc": lambda request, services: {"ipc": _joined(request.fields.get("HostConfig.IpcMode", ""), services)},
    "pid": lambda request, services: {"pid": _joined(request.fields.get("HostConfig.PidMode", ""), services)},
    "volume": lambda request, _: {"volumes": [*request.fields.get("HostConfig.Binds", ()), *request.volumes]},
    "volumes-from": _volumes_from,
    "log-driver": _log,
    "no-healthcheck": _no_health,
}


def left_out(request: CreateRequest, containers: Sequence[CreateRequest]) -> list[str]:
    """The settings that Compose cannot express."""
    asked = request.fields
    found = [f"--{o.flag}" for o in table.OPTIONS if o.field in asked and not o.service]
    inside = {name for container in containers for name in (container.name, container.id)}
    for spec in asked.get("HostConfig.VolumesFrom", ()):
        ref, _, mode = spec.partition(":")
        if mode and ref not in inside:
            found.append(f"the mode of --volumes-from {spec}")
    if not all(value_types.portable(option) for option in asked.get("HostConfig.SecurityOpt", ())):
        found.append("a seccomp profile that is in no file")
    if request.networks and not request.plain_network and "bridge" in request.networks:
        found.append("the default bridge beside other networks")
    if request.mac and (request.plain_network or not request.networks):
        found.append("--mac-address without a network of one's own")
    if asked.get("HostConfig.DeviceRequests"):
        found.append("--gpus, and --device by a name")
    return found + [f"--secret (id {secret})" for secret in request.secrets]


def _named_volumes(request: CreateRequest) -> list[str]:
    binds = [spec.split(":")[0] for spec in request.fields.get("HostConfig.Binds", ())]
    mounts = request.fields.get("HostConfig.Mounts", ())
    sources = [mount.get("Source") or "" for mount in mounts if mount.get("Type") == "volume"]
    return [name for name in (*binds, *sources) if name and not name.startswith("/")]
