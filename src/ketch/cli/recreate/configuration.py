"""What was said when a container was made: its configuration without what its image and Docker's defaults bring.

``inspect --as`` works with it; the input is the daemon's answers about the container and its image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

Strings = list[str]

# Values of HostConfig that nobody has to ask for; all others that are empty are defaults as well.
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "CgroupnsMode": ("private",),
    "IpcMode": ("private", "shareable"),
    "MemorySwappiness": (-1,),
    "NetworkMode": ("default", "bridge"),
    "Runtime": ("ketch", "runc"),
    "ShmSize": (64 << 20,),
}
# Facts about the one who made it, and what Docker says of itself; no flag belongs to them.
_NOT_SAID = (
    "ConsoleSize", "ContainerIDFile", "MaskedPaths", "ReadonlyPaths", "Cgroup", "CpuCount", "CpuPercent",
    "IOMaximumIOps", "IOMaximumBandwidth", "Capabilities",
)  # fmt: skip


class Wanted:
    """One container: ``config`` and ``host`` in Docker's names, without defaults; ``networks`` by name."""

    def __init__(self, facts: dict[str, Any], image: dict[str, Any]) -> None:
        self.name: str = facts["Name"].lstrip("/")
        self.id: str = facts["Id"]
        config = facts["Config"]
        self.image: str = config["Image"]
        self.host = _host(facts["HostConfig"])
        self.config = _config(facts, image)
        self.env = environment(config.get("Env") or [], image.get("Env") or [])
        self.labels = _beyond(config.get("Labels"), image.get("Labels"))
        self.volumes = sorted(_beyond(config.get("Volumes"), image.get("Volumes")))
        self.entrypoint, self.command = _command(config, image)
        self.health = _health(config.get("Healthcheck") or {}, image.get("Healthcheck") or {})
        self.bindings = bindings(self.host.pop("PortBindings", {}))
        published = {port for port, _ in self.bindings}
        self.exposed = [p for p in _beyond(config.get("ExposedPorts"), image.get("ExposedPorts")) if p not in published]
        self.mode: str = facts["HostConfig"].get("NetworkMode") or "default"
        self.host.pop("NetworkMode", None)
        self.networks = _networks(facts, self.mode)
        self.mac: str = "" if self.mode in ("host", "none") else config.get("MacAddress") or ""
        self.secrets: Strings = [secret["ID"] for secret in self.host.pop("Secrets", ())]

    @property
    def plain_network(self) -> bool:
        """Whether the network is the one that a container has without any word about it."""
        return self.mode in ("default", "bridge") and set(self.networks) <= {"bridge", "default"}


def _config(facts: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    config = facts["Config"]
    result = {
        key: config.get(key) for key in ("Hostname", "Domainname", "User", "WorkingDir", "StopSignal", "StopTimeout",
                                         "Tty", "OpenStdin", "AttachStdin", "AttachStdout", "AttachStderr")
    }  # fmt: skip
    if result["Hostname"] == facts["Id"][:12] or facts["HostConfig"].get("UTSMode") == "host":
        result["Hostname"] = ""
    for key in ("User", "WorkingDir", "StopSignal"):
        if result[key] == image.get(key):
            result[key] = ""
    return {key: value for key, value in result.items() if value or (key == "StopTimeout" and value is not None)}


def _host(host: dict[str, Any]) -> dict[str, Any]:
    result = {
        key: value for key, value in host.items()
        if key not in _NOT_SAID and value not in _DEFAULTS.get(key, ()) and (value or key == "MemorySwappiness")
        and value is not None
    }  # fmt: skip
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
    """What was given in front of the image's variables, of which those of the same names were left out."""
    for count in range(len(env) + 1):
        names = {item.partition("=")[0] for item in env[:count]}
        if env[count:] == [item for item in image if item.partition("=")[0] not in names]:
            return [item for item in env[:count] if "=" in item]
    return [item for item in env if item not in image and "=" in item]  # a variable of the image was removed


def _beyond(mine: dict[str, Any] | None, image: dict[str, Any] | None) -> dict[str, Any]:
    image = image or {}
    return {key: value for key, value in (mine or {}).items() if key not in image or image[key] != value}


def _command(config: dict[str, Any], image: dict[str, Any]) -> tuple[Strings | None, Strings]:
    """(the entrypoint, None when it is the image's; the command, empty when it follows from that)."""
    entrypoint, command = config.get("Entrypoint") or [], config.get("Cmd") or []
    theirs, default = image.get("Entrypoint") or [], image.get("Cmd") or []
    if entrypoint == theirs and (command or not default):
        return None, [] if command == default else command
    return entrypoint, command


def _health(mine: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mine.items() if value and value != image.get(key)}


def bindings(ports: dict[str, Any] | None) -> list[tuple[str, dict[str, str]]]:
    """(container's port, one binding) of each published port."""
    nowhere: list[dict[str, str]] = [{}]
    return [(port, binding) for port, bound in (ports or {}).items() for binding in bound or nowhere]


def published(port: str, binding: dict[str, str]) -> str:
    """A binding as ``--publish`` and Compose write it: ``127.0.0.1:8080:80/udp``."""
    number, _, proto = port.partition("/")
    inner = number if proto in ("", "tcp") else f"{number}/{proto}"
    address, host = binding.get("HostIp") or "", binding.get("HostPort") or ""
    if ":" in address:
        address = f"[{address}]"
    if address:
        return f"{address}:{host}:{inner}"
    return f"{host}:{inner}" if host else inner


def _networks(facts: dict[str, Any], mode: str) -> dict[str, dict[str, Any]]:
    """What was asked of each network; empty for a container that shares another's, or has none."""
    if mode in ("host", "none") or mode.startswith("container:"):
        return {}
    result = {}
    for name, settings in (facts["NetworkSettings"].get("Networks") or {}).items():
        config = {key: value for key, value in (settings.get("IPAMConfig") or {}).items() if value}
        aliases = [a for a in settings.get("Aliases") or () if a != facts["Id"][:12]]
        wanted = {
            "IPAMConfig": config, "Aliases": aliases, "DriverOpts": settings.get("DriverOpts"),
            "GwPriority": settings.get("GwPriority"), "Links": settings.get("Links"),
        }  # fmt: skip
        result[name] = {key: value for key, value in wanted.items() if value}
    return result
