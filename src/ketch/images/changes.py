"""``--change``: the Dockerfile instructions that alter a configuration without running anything."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import msgspec

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.oci.config import RunConfig


def apply(config: RunConfig, changes: Sequence[str]) -> None:
    """Apply instructions such as ``CMD ["sh"]`` or ``ENV A=b``, in order; InvalidArgument for others."""
    for change in changes:
        for line in change.splitlines():
            if line.strip():
                _one(config, line.strip())


def _one(config: RunConfig, line: str) -> None:
    word, _, rest = line.partition(" ")
    handler = _HANDLERS.get(word.upper())
    if handler is None:
        raise InvalidArgument(
            f"{word.upper()} is not a valid change command", hint=f"use one of {', '.join(_HANDLERS)}"
        )
    if not rest.strip():
        raise InvalidArgument(f"{word.upper()} requires at least one argument")
    handler(config, rest.strip())


def _command(text: str) -> list[str]:
    """The JSON form, or the shell form."""
    if text.startswith("["):
        try:
            return msgspec.json.decode(text, type=list[str])
        except msgspec.DecodeError:
            pass  # Docker takes what is not JSON as a shell command, too
    return ["/bin/sh", "-c", text]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as e:
        raise InvalidArgument(f"change `{text}`: {e}") from e


def _pairs(text: str) -> list[tuple[str, str]]:
    """``A=b C="d e"`` or the old ``A value with spaces``."""
    words = _words(text)
    if words and "=" not in words[0]:
        key, _, value = text.partition(" ")
        if not value:
            raise InvalidArgument(f"change `{text}`: it must have two arguments")
        return [(key, value.strip())]
    return [(key, value) for key, _, value in (word.partition("=") for word in words)]


def _env(config: RunConfig, text: str) -> None:
    merged = {item.partition("=")[0]: item for item in config.env or ()}
    merged.update({key: f"{key}={value}" for key, value in _pairs(text)})
    config.env = list(merged.values())


def _expose(config: RunConfig, text: str) -> None:
    ports = dict(config.exposed_ports or {})
    for port in _words(text):
        number, slash, proto = port.partition("/")
        if not number.isdecimal() or not 0 < int(number) < 65536 or (slash and proto not in ("tcp", "udp", "sctp")):
            raise InvalidArgument(f"change `EXPOSE {text}`: `{port}` is not a port")
        ports[port if slash else f"{port}/tcp"] = {}
    config.exposed_ports = ports


def _volume(config: RunConfig, text: str) -> None:
    paths = msgspec.json.decode(text, type=list[str]) if text.startswith("[") else _words(text)
    config.volumes = {**(config.volumes or {}), **{path: {} for path in paths}}


def _health(config: RunConfig, text: str) -> None:
    if text.upper() == "NONE":
        config.healthcheck = {"Test": ["NONE"]}
        return
    word, _, rest = text.partition(" ")
    if word.upper() != "CMD" or not rest:
        raise InvalidArgument(f"change `HEALTHCHECK {text}`: use NONE or CMD COMMAND")
    command = _command(rest)
    shell = command[:2] == ["/bin/sh", "-c"] and not rest.startswith("[")
    config.healthcheck = {"Test": ["CMD-SHELL", command[2]] if shell else ["CMD", *command]}


def _set(name: str, convert: Callable[[str], Any]) -> Callable[[RunConfig, str], None]:
    return lambda config, text: setattr(config, name, convert(text))


_HANDLERS: dict[str, Callable[[Any, str], None]] = {
    "CMD": _set("cmd", _command),
    "ENTRYPOINT": _set("entrypoint", _command),
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _health,
    "LABEL": lambda config, text: setattr(config, "labels", {**(config.labels or {}), **dict(_pairs(text))}),
    "ONBUILD": lambda config, text: setattr(config, "on_build", [*(config.on_build or []), text]),
    "STOPSIGNAL": _set("stop_signal", str),
    "USER": _set("user", str),
    "VOLUME": _volume,
    "WORKDIR": _set("working_dir", str),
}
