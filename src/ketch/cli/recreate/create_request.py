"""The create request of a container: its configuration without the image's and Docker's defaults.

``inspect --as`` works with it; the input is the daemon's answers about the container and its image.
"""

from __future__ import annotations

from ketch.notation.namespace_modes import is_network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.notation.api_objects import ApiObject

Strings = list[str]

# Values of HostConfig that are there without being asked for; all others that are empty are defaults as well.
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "CgroupnsMode": ("private",),
    "IpcMode": ("private", "shareable"),
    "MemorySwappiness": (-1,),
    "NetworkMode": ("default", "bridge"),
    "Runtime": ("ketch",),
    "ShmSize": (64 << 20,),
}
# Facts about the client that made it, and what Docker itself writes there; no flag belongs to them.
_UNASKED = (
    "ConsoleSize",
    "ContainerIDFile",
    "MaskedPaths",
    "ReadonlyPaths",
    "Cgroup",
    "CpuCount",
    "CpuPercent",
    "IOMaximumIOps",
    "IOMaximumBandwidth",
    "Capabilities",
)
_CONFIG = (
    "Hostname",
    "Domainname",
    "User",
    "WorkingDir",
    "StopSignal",
    "StopTimeout",
    "Tty",
    "OpenStdin",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
)


class CreateRequest:
    """The request; ``fields`` are by path (``User``, ``HostConfig.Memory``).

    What the API says in several fields together is in attributes of its own; ``networks`` is by name.
    """

    def __init__(self, facts: ApiObject, image: ApiObject) -> None:
        self.name: str = facts["Name"].lstrip("/")
        self.id: str = facts["Id"]
        config, host = facts["Config"], _host(facts["HostConfig"])
        self.image: str = config["Image"]
        self.env = environment(config.get("Env") or [], image.get("Env") or [])
        self.labels = _beyond(config.get("Labels"), image.get("Labels"))
        self.volumes = sorted(_beyond(config.get("Volumes"), image.get("Volumes")))
        self.entrypoint, self.command = command(config, image)
        self.bindings = bindings(host.pop("PortBindings", {}))
        published = {port for port, _ in self.bindings}
        self.exposed = [p for p in _beyond(config.get("ExposedPorts"), image.get("ExposedPorts")) if p not in published]
        host.pop("NetworkMode", None)
        self.mode: str = facts["HostConfig"].get("NetworkMode") or "default"
        self.networks = _networks(facts, self.mode)
        self.mac: str = "" if self.mode in ("host", "none") else config.get("MacAddress") or ""
        self.secrets: Strings = [secret["ID"] for secret in host.pop("Secrets", ())]
        health = _health(config.get("Healthcheck") or {}, image.get("Healthcheck") or {})
        self.fields: ApiObject = {
            **_config(facts, image),
            **{f"HostConfig.{key}": value for key, value in host.items()},
            **{f"Healthcheck.{key}": value for key, value in health.items()},
        }

    @property
    def plain_network(self) -> bool:
        """Whether the network is the default of a container, without further settings."""
        return self.mode in ("default", "bridge") and set(self.networks) <= {"bridge", "default"}


def _config(facts: ApiObject, image: ApiObject) -> ApiObject:
    config = facts["Config"]
    result = {key: config.get(key) for key in _CONFIG}
    host = facts["HostConfig"]
    if result["Hostname"] == facts["Id"][:12] or host.get("UTSMode") == "host":
        result["Hostname"] = ""
    if (host.get("NetworkMode") or "").startswith("container:"):  # that container's names
        result["Hostname"] = result["Domainname"] = ""
    for key in ("User", "WorkingDir", "StopSignal"):
        if result[key] == image.get(key):
            result[key] = ""
    return {key: value for key, value in result.items() if value or (key == "StopTimeout" and value is not None)}


def _is_default(key: str, value: Any) -> bool:
    if key in _UNASKED or value is None or value in _DEFAULTS.get(key, ()):
        return True
    return not value and key != "MemorySwappiness"


def _host(host: ApiObject) -> ApiObject:
    result = {key: value for key, value in host.items() if not _is_default(key, value)}
    if host.get("Init") is False:
        result["Init"] = False
    if (host.get("RestartPolicy") or {}).get("Name") in ("", "no", None):
        result.pop("RestartPolicy", None)
    if host.get("MaskedPaths") == [] and host.get("ReadonlyPaths") == [] and not host.get("Privileged"):
        result["SecurityOpt"] = [*(host.get("SecurityOpt") or ()), "systempaths=unconfined"]
    log = host.get("LogConfig") or {}
    if log.get("Type") in ("", "json-file") and not log.get("Config"):
        result.pop("LogConfig", None)
    if host.get("Memory") and host.get("MemorySwap") == 2 * host["Memory"]:
        result.pop("MemorySwap")
    return result


def environment(env: Strings, image: Strings) -> Strings:
    """The given variables, which precede the image's (of which overridden ones were dropped)."""
    for count in range(len(env) + 1):
        names = {item.partition("=")[0] for item in env[:count]}
        if env[count:] == [item for item in image if item.partition("=")[0] not in names]:
            return [item for item in env[:count] if "=" in item]
    return [item for item in env if item not in image and "=" in item]  # a variable of the image was removed


def _beyond(mine: ApiObject | None, image: ApiObject | None) -> ApiObject:
    image = image or {}
    return {key: value for key, value in (mine or {}).items() if key not in image or image[key] != value}


def command(config: ApiObject, image: ApiObject) -> tuple[Strings | None, Strings]:
    """(the entrypoint, None if the image's; the command, empty if the image's)."""
    entrypoint, words = config.get("Entrypoint") or [], config.get("Cmd") or []
    theirs, default = image.get("Entrypoint") or [], image.get("Cmd") or []
    if entrypoint == theirs and (words or not default):
        return None, [] if words == default else words
    return entrypoint, words


def _health(mine: ApiObject, image: ApiObject) -> ApiObject:
    if mine.get("Test") == ["NONE"]:
        return {"Test": ["NONE"]}
    return {key: value for key, value in mine.items() if value and value != image.get(key)}


def bindings(ports: ApiObject | None) -> list[tuple[str, dict[str, str]]]:
    """The bindings of published ports, as (container's port, binding)."""
    nowhere: list[dict[str, str]] = [{}]
    return [(port, binding) for port, bound in (ports or {}).items() for binding in bound or nowhere]


def _networks(facts: ApiObject, mode: str) -> dict[str, ApiObject]:
    """The settings of each network; empty for a container that shares another's, or has none."""
    if not is_network(mode):
        return {}
    result = {}
    for name, settings in (facts["NetworkSettings"].get("Networks") or {}).items():
        config = {key: value for key, value in (settings.get("IPAMConfig") or {}).items() if value}
        aliases = [a for a in settings.get("Aliases") or () if a != facts["Id"][:12]]
        asked = {key: settings.get(key) for key in ("DriverOpts", "GwPriority", "Links")}
        asked = {"IPAMConfig": config, "Aliases": aliases, **asked}
        result[name] = {key: value for key, value in asked.items() if value}
    return result
