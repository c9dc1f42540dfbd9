"""Docker's facts about networks and containers as the requests that make the same in Ketch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.notation.namespace_modes import is_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.notation.api_objects import ApiObject

_ITS_OWN = ("Name", "Driver", "Scope", "Internal", "Attachable")
_NETWORK = (*_ITS_OWN, "EnableIPv4", "EnableIPv6", "Options", "Labels", "ConfigOnly")
_RUNTIMES = ("runc", "io.containerd.runc.v2")  # names of Docker's default
_SHARED = ("NetworkMode", "IpcMode", "PidMode")
_OF_CONTAINER = "container:"
_COMPOSE_IMAGE = "com.docker.compose.image"  # the label with the id of the image that the service has
_ANONYMOUS = "com.docker.volume.anonymous"  # the label of volumes without a name, and of mounts that take one over
_ENDPOINT = ("IPAMConfig", "DriverOpts", "GwPriority", "Links")
PREDEFINED = ("bridge", "host", "none")


def network(facts: ApiObject) -> ApiObject:
    """The request that makes a network like this."""
    if template := config_from(facts):  # everything else is the template's
        return {**{key: facts[key] for key in _ITS_OWN if facts.get(key)}, "ConfigFrom": {"Network": template}}
    body = {key: facts[key] for key in _NETWORK if facts.get(key) is not None}
    if body.get("ConfigOnly"):
        body = {key: value for key, value in body.items() if key == "Name" or key not in _ITS_OWN}
    ipam = facts.get("IPAM") or {}
    pools = ({key: value for key, value in pool.items() if value} for pool in ipam.get("Config") or ())
    config = [pool for pool in pools if pool]  # of settings for others Docker has empty ones
    return {
        **body,
        "IPAM": {"Driver": ipam.get("Driver") or "default", "Options": ipam.get("Options"), "Config": config},
    }


def config_from(facts: ApiObject) -> str:
    """The name of the network whose settings a network takes; empty for one with its own."""
    return str((facts.get("ConfigFrom") or {}).get("Network") or "")


def container(facts: ApiObject, image: str, image_id: str, name_of: Callable[[str], str]) -> ApiObject:
    """The request that makes a container like this, of Ketch's ``image``; ``name_of`` another container, by its id.

    ``image_id`` is what the id of the container's image is in Ketch.
    """
    config = dict(facts["Config"])
    labels = config.get("Labels") or {}
    if labels.get(_COMPOSE_IMAGE) == facts["Image"]:  # Compose would make the container anew
        config["Labels"] = {**labels, _COMPOSE_IMAGE: image_id}
    mac = config.pop("MacAddress", "")
    config["Image"] = image
    host = _host(facts, name_of)
    shares_names = host["NetworkMode"].startswith(_OF_CONTAINER) or host.get("UTSMode") == "host"
    if config.get("Hostname") == facts["Id"][:12] or shares_names:
        config["Hostname"] = ""
    if shares_names:
        config["Domainname"] = ""
    endpoints = _endpoints(facts, host["NetworkMode"])
    if mac and (first := _first(host["NetworkMode"])) in endpoints:
        endpoints[first]["MacAddress"] = mac
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints}}


def containers_needed(facts: ApiObject, name_of: Callable[[str], str]) -> set[str]:
    """The names of the containers whose namespaces or volumes a container shares, or to which it is linked."""
    host = facts["HostConfig"]
    modes = [host.get(key) or "" for key in _SHARED]
    found = {mode.removeprefix(_OF_CONTAINER) for mode in modes if mode.startswith(_OF_CONTAINER)}
    found |= {item.partition(":")[0] for item in host.get("VolumesFrom") or ()}
    found |= {link.partition(":")[0].lstrip("/") for link in host.get("Links") or ()}
    return {name_of(ref) for ref in found}


def networks_needed(facts: ApiObject) -> set[str]:
    """The names of the networks that a container is connected to, without those that are there by themselves."""
    mode = facts["HostConfig"].get("NetworkMode") or "default"
    return set(_endpoints(facts, mode)) - set(PREDEFINED)


def volumes_needed(facts: ApiObject) -> set[str]:
    """The names of the volumes that a container mounts."""
    return {mount["Name"] for mount in facts.get("Mounts") or () if mount["Type"] == "volume"}


def _host(facts: ApiObject, name_of: Callable[[str], str]) -> ApiObject:
    host = dict(facts["HostConfig"])
    for key in _SHARED:
        mode = host.get(key) or ""
        if mode.startswith(_OF_CONTAINER):
            host[key] = _OF_CONTAINER + name_of(mode.removeprefix(_OF_CONTAINER))
    host["NetworkMode"] = _network_mode(facts, host.get("NetworkMode") or "default")
    if host.get("Runtime") in _RUNTIMES:
        del host["Runtime"]
    # /NAME:/OF-THIS-ONE/ALIAS
    host["Links"] = [_link(link) for link in host.get("Links") or ()]
    host["VolumesFrom"] = [_shared_volumes(item, name_of) for item in host.get("VolumesFrom") or ()]
    host["Binds"], host["Mounts"] = _mounts(facts)
    return host


def _network_mode(facts: ApiObject, mode: str) -> str:
    """The mode with the network's name, where Docker was given its id."""
    for name, settings in ((facts.get("NetworkSettings") or {}).get("Networks") or {}).items():
        if mode == settings.get("NetworkID"):
            return str(name)
    return mode


def _link(link: str) -> str:
    target, _, alias = link.partition(":")
    return f"{target.lstrip('/')}:{alias.rpartition('/')[2]}" if alias else target.lstrip("/")


def _shared_volumes(item: str, name_of: Callable[[str], str]) -> str:
    ref, colon, mode = item.partition(":")
    return f"{name_of(ref)}{colon}{mode}"


def _mounts(facts: ApiObject) -> tuple[list[str], list[ApiObject]]:
    """Binds and mounts, in which volumes without a name have the one that Docker gave them, and stay anonymous."""
    host = facts["HostConfig"]
    found = {m["Destination"]: m for m in facts.get("Mounts") or () if m["Type"] == "volume"}
    mounts = [dict(mount) for mount in host.get("Mounts") or ()]
    for mount in mounts:
        if mount.get("Type") == "volume" and not mount.get("Source") and mount.get("Target") in found:
            options = dict(mount.get("VolumeOptions") or {})
            options["Labels"] = {**(options.get("Labels") or {}), _ANONYMOUS: ""}
            mount |= {"Source": found[mount["Target"]]["Name"], "VolumeOptions": options}
    binds = [bind for bind in host.get("Binds") or () if ":" in bind or bind not in found]
    placed = {mount.get("Target") for mount in mounts} | {_target(bind) for bind in binds}
    unnamed = [*(facts["Config"].get("Volumes") or ()), *(host.get("Binds") or ())]
    paths = dict.fromkeys(path for path in unnamed if path not in placed and path in found)
    return binds, [*mounts, *(_anonymous(found[path], path) for path in paths)]


def _anonymous(volume: ApiObject, path: str) -> ApiObject:
    """The mount of a volume that nobody gave a name, which goes with its container."""
    mount = {"Type": "volume", "Source": volume["Name"], "Target": path, "ReadOnly": not volume.get("RW", True)}
    return {**mount, "VolumeOptions": {"Labels": {_ANONYMOUS: ""}}}


def _target(bind: str) -> str:
    words = bind.split(":")
    return words[1] if len(words) > 1 else words[0]


def _first(mode: str) -> str:
    return "bridge" if mode == "default" else mode


def _endpoints(facts: ApiObject, mode: str) -> dict[str, ApiObject]:
    """The settings that each network was asked for; empty for a container that shares another's, or has none."""
    if not is_network(mode):
        return {}
    found = {}
    for name, settings in ((facts.get("NetworkSettings") or {}).get("Networks") or {}).items():
        asked = {key: settings[key] for key in _ENDPOINT if settings.get(key)}
        aliases = [alias for alias in settings.get("Aliases") or () if alias != facts["Id"][:12]]
        found[name] = {**asked, "Aliases": aliases} if aliases else asked
    return found
