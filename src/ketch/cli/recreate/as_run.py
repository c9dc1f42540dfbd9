"""A container as the ``ketch run`` command line that recreates it."""

from __future__ import annotations

import shlex

from ketch.cli.options import device_flags, network_flags, ports, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ketch.cli.recreate.create_request import CreateRequest


def command_line(request: CreateRequest) -> str:
    """The command line, quoted for a POSIX shell."""
    return shlex.join(words(request))


def words(request: CreateRequest) -> list[str]:
    """The command's words, from ``ketch`` on.

    A value that looks like a flag is no trouble: it belongs to its flag, whatever it looks like.
    """
    result = ["ketch", "run"]
    for option in table.OPTIONS:
        value = request.fields.get(option.field)
        if option.flag in _TOGETHER:
            result += _TOGETHER[option.flag](request)
        elif value is not None:
            result += option.type.words(option.flag, value)
    command = request.command
    if request.entrypoint is not None:  # the flag takes one word, the others go before the command
        command = [*request.entrypoint[1:], *command]
    return [*result, request.image, *command]


def _each(flag: str, values: Iterable[str]) -> list[str]:
    return [word for value in values for word in (f"--{flag}", value)]


def _streams(request: CreateRequest) -> list[str]:
    attached = [name for name in ("stdin", "stdout", "stderr") if request.fields.get(f"Attach{name.capitalize()}")]
    if not attached:
        return ["--detach"]
    if {"stdout", "stderr"} - set(attached) or ("stdin" in attached) != bool(request.fields.get("OpenStdin")):
        return _each("attach", attached)
    return []


def _entrypoint(request: CreateRequest) -> list[str]:
    if request.entrypoint is None:
        return []
    return ["--entrypoint", request.entrypoint[0] if request.entrypoint else ""]


def _network(request: CreateRequest) -> list[str]:
    mode = "bridge" if request.mode == "default" else request.mode
    first = request.networks.get(mode, {})
    others = {name: settings for name, settings in request.networks.items() if name != mode}
    result: list[str] = []
    if set(first) <= {"Aliases", "IPAMConfig", "Links"}:
        config = first.get("IPAMConfig", {})
        result += _each("network", [mode] if mode != "bridge" or others else [])
        result += _each("network-alias", first.get("Aliases", ()))
        result += _each("ip", filter(None, [config.get("IPv4Address")]))
        result += _each("ip6", filter(None, [config.get("IPv6Address")]))
        result += _each("link-local-ip", config.get("LinkLocalIPs") or ())
    else:
        result += ["--network", network_flags.text_of(mode, first)]
    result += _each("network", (network_flags.text_of(name, settings) for name, settings in others.items()))
    result += _each("link", first.get("Links", ()))
    return result + _each("mac-address", [request.mac] if request.mac else [])


def _log(request: CreateRequest) -> list[str]:
    log = request.fields.get("HostConfig.LogConfig") or {"Type": ""}
    result = ["--log-driver", log["Type"]] if log["Type"] not in ("", "json-file") else []
    return result + _each("log-opt", (f"{key}={value}" for key, value in (log.get("Config") or {}).items()))


def _volumes(request: CreateRequest) -> list[str]:
    return _each("volume", [*request.fields.get("HostConfig.Binds", ()), *request.volumes])


def _secrets(request: CreateRequest) -> list[str]:
    return _each("secret", (f"id={secret},src=SOURCE_OF_{secret}" for secret in request.secrets))


# Flags whose values are not those of one field.
_TOGETHER: dict[str, Callable[[CreateRequest], list[str]]] = {
    "detach": _streams,
    "name": lambda request: ["--name", request.name],
    "entrypoint": _entrypoint,
    "env": lambda request: _each("env", request.env),
    "label": lambda request: _each("label", (f"{name}={value}" for name, value in request.labels.items())),
    "publish": lambda request: _each("publish", (ports.text_of(*published) for published in request.bindings)),
    "expose": lambda request: _each("expose", request.exposed),
    "network": _network,
    "volume": _volumes,
    "secret": _secrets,
    "gpus": lambda request: device_flags.words(request.fields.get("HostConfig.DeviceRequests") or []),
    "log-driver": _log,
}
