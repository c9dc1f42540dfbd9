"""``--change``: the Dockerfile instructions that alter a configuration without running anything."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import msgspec

from ketch.errors import InvalidArgument
from ketch.notation import digits, durations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.oci.config import DockerHealthcheck, RunConfig

_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?\Z", re.ASCII)
_OPTION = re.compile(r"--(interval|timeout|start-period|start-interval|retries)=(\S+)\Z")
_DURATIONS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def apply(config: RunConfig, changes: Sequence[str]) -> None:
    """Apply instructions such as ``CMD ["sh"]`` or ``ENV A=b``, in order; InvalidArgument for others."""
    for change in changes:
        for line in change.splitlines():
            if line.strip():
                _apply_line(config, line.strip())


def _apply_line(config: RunConfig, line: str) -> None:
    word, _, rest = line.partition(" ")
    handler = _HANDLERS.get(word.upper())
    if handler is None:
        raise InvalidArgument(
            f"{word.upper()} is not a valid change command", hint=f"use one of {', '.join(_HANDLERS)}"
        )
    if not rest.strip():
        raise InvalidArgument(f"{word.upper()} requires at least one argument")
    handler(config, rest.strip())


def _json(text: str) -> list[str] | None:
    """The value of the JSON form, None for any other text (as with Docker)."""
    if text.startswith("["):
        try:
            return msgspec.json.decode(text, type=list[str])
        except (msgspec.DecodeError, UnicodeEncodeError):
            return None
    return None


def _command(text: str) -> list[str]:
    """The JSON form, or the shell form."""
    command = _json(text)
    return ["/bin/sh", "-c", text] if command is None else command


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
    for word in _words(text):
        match = _PORTS.match(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 0 < first <= last < 65536:
            raise InvalidArgument(
                f"change `EXPOSE {text}`: `{word}` is not a port", hint="write 80, 53/udp or 8000-8010"
            )
        ports.update({f"{port}/{match[3] or 'tcp'}": {} for port in range(first, last + 1)})
    config.exposed_ports = ports


def _volume(config: RunConfig, text: str) -> None:
    paths = _json(text) or _words(text)
    if not all(paths):
        raise InvalidArgument("change `VOLUME`: a path must not be empty")
    config.volumes = {**(config.volumes or {}), **{path: {} for path in paths}}


def _health(config: RunConfig, text: str) -> None:
    """``NONE``, or options and then ``CMD`` with a command; durations become nanoseconds, as Docker has them."""
    check: DockerHealthcheck = {}
    word, _, rest = text.partition(" ")
    while match := _OPTION.match(word):
        name, value = match.groups()
        if name == "retries":
            check["Retries"] = _count(value, text)
        else:
            check[_DURATIONS[name]] = _duration(value, text)
        word, _, rest = rest.strip().partition(" ")
    rest = rest.strip()
    if word.upper() == "NONE" and not rest and not check:
        config.healthcheck = {"Test": ["NONE"]}
        return
    if word.upper() != "CMD" or not rest:
        raise InvalidArgument(f"change `HEALTHCHECK {text}`: use NONE or [OPTIONS] CMD COMMAND")
    command = _json(rest)
    config.healthcheck = {"Test": ["CMD", *command] if command else ["CMD-SHELL", rest], **check}


def _count(value: str, text: str) -> int:
    number = digits.whole(value)
    if number is None:
        raise InvalidArgument(f"change `HEALTHCHECK {text}`: `{value}` is not a number")
    return number


def _duration(value: str, text: str) -> int:
    """``1m30s`` in nanoseconds."""
    found = durations.parse(value)
    if found is None or found < 0:
        raise InvalidArgument(
            f"change `HEALTHCHECK {text}`: `{value}` is not a duration", hint="write e.g. 30s or 1m30s"
        )
    return found


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
