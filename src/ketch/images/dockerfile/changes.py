"""``--change``: the Dockerfile instructions that alter a configuration without running anything.

All are read before the first is applied.  What they do, and their errors, are those of dockerd.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument
from ketch.images.dockerfile import lines, words
from ketch.notation import digits, durations, signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.images.dockerfile.lines import Instruction
    from ketch.oci.config import DockerHealthcheck, RunConfig

    Step = Callable[["_State"], None]

_SHELL = ["/bin/sh", "-c"]
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?\Z", re.ASCII)
_DURATIONS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}
_SHORTEST_NS = 10**6


class _State:
    """A configuration while instructions are applied to it; ``has_command``: one of them was CMD."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.has_command = False

    def variables(self) -> dict[str, str]:
        return {name: value for name, _, value in (item.partition("=") for item in self.config.env or ())}


def apply(config: RunConfig, changes: Sequence[str]) -> None:
    """Apply instructions such as ``CMD ["sh"]`` or ``ENV A=b``, in order; InvalidArgument for others."""
    if not changes:
        return
    found = lines.instructions("\n".join(changes))
    for one in found:
        if one.keyword in _PAIRS:
            lines.pairs(one)  # before the names are looked at, as all that the grammar says
    for one in found:
        if one.keyword not in _READERS:
            raise InvalidArgument(f"{one.name} is not a valid change command")
    steps = [_READERS[one.keyword](one) for one in found]
    state = _State(config)
    for step in steps:
        step(state)


# -- what is the same for several ----------------------------------------------------------------


def _no_flags(one: Instruction) -> None:
    for flag in one.flags:
        raise InvalidArgument(f"unknown flag: --{flag.partition('=')[0]}")


def _one_text(one: Instruction) -> str:
    if not one.rest:
        raise InvalidArgument(f"{one.keyword} requires exactly one argument")
    _no_flags(one)
    return one.rest


def _some(one: Instruction, values: list[str]) -> list[str]:
    if not values:
        raise InvalidArgument(f"{one.keyword} requires at least one argument")
    _no_flags(one)
    return values


def _expanded(one: Instruction, state: _State, text: str) -> str:
    return words.expand(text, state.variables(), one.escape)


# -- one for each instruction --------------------------------------------------------------------


def _pairs(one: Instruction) -> list[tuple[str, str]]:
    _no_flags(one)
    found = lines.pairs(one)
    if not found:
        raise InvalidArgument(f"{one.keyword} requires at least one argument")
    if not all(key for key, _ in found):
        raise InvalidArgument(f"{one.keyword} names can not be blank")
    return found


def _env(one: Instruction) -> Step:
    pairs = _pairs(one)

    def step(state: _State) -> None:
        variables = state.variables()
        merged = {item.partition("=")[0]: item for item in state.config.env or ()}
        for pair in pairs:
            key, value = (words.expand(text, variables, one.escape) for text in pair)
            merged[key] = f"{key}={value}"
        state.config.env = list(merged.values())

    return step


def _label(one: Instruction) -> Step:
    pairs = _pairs(one)

    def step(state: _State) -> None:
        variables = state.variables()
        new = {words.expand(k, variables, one.escape): words.expand(v, variables, one.escape) for k, v in pairs}
        state.config.labels = {**(state.config.labels or {}), **new}

    return step


def _cmd(one: Instruction) -> Step:
    _no_flags(one)
    exact = lines.json_list(one.rest)

    def step(state: _State) -> None:
        shell = [*(state.config.shell or _SHELL), *([one.rest] if one.rest else [])]
        state.config.cmd = shell if exact is None else exact
        state.has_command = bool(one.rest if exact is None else exact)

    return step


def _entrypoint(one: Instruction) -> Step:
    _no_flags(one)
    exact = lines.json_list(one.rest)

    def step(state: _State) -> None:
        shell = [*(state.config.shell or _SHELL), one.rest] if one.rest else None
        state.config.entrypoint = shell if exact is None else exact or None
        if not state.has_command:
            state.config.cmd = None

    return step


def _expose(one: Instruction) -> Step:
    values = _some(one, one.rest.split())

    def step(state: _State) -> None:
        variables = state.variables()
        specs = [spec for value in values for spec in words.expand_words(value, variables, one.escape)]
        ports = [port for spec in specs for port in _ports(spec)]
        state.config.exposed_ports = {**(state.config.exposed_ports or {}), **{port: {} for port in ports}}

    return step


def _ports(spec: str) -> list[str]:
    """``[[IP:]HOST:]PORT[-PORT][/PROTOCOL]`` → ``PORT/PROTOCOL``, of which an image keeps nothing else."""
    where, _, text = spec.rpartition(":")
    port, _, protocol = text.partition("/")
    protocol = protocol.partition("/")[0].lower() or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"Invalid proto: {protocol}")
    if not port:
        raise InvalidArgument(f"No port specified: {spec}<empty>")
    inside = _range(port)
    if inside is None:
        raise InvalidArgument(f"Invalid containerPort: {port}")
    host = where.rpartition(":")[2]
    if host:
        outside = _range(host)
        if outside is None:
            raise InvalidArgument(f"Invalid hostPort: {host}")
        if len(inside) not in (1, len(outside)):
            raise InvalidArgument(f"Invalid ranges specified for container and host Ports: {port} and {host}")
    return [f"{number}/{protocol}" for number in inside]


def _range(text: str) -> range | None:
    match = _PORTS.match(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
    return range(first, last + 1) if first <= last < 65536 else None


def _volume(one: Instruction) -> Step:
    exact = lines.json_list(one.rest)
    paths = [path.strip() for path in _some(one, one.rest.split() if exact is None else exact)]
    if not all(paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")

    def step(state: _State) -> None:
        new = [_expanded(one, state, path) for path in paths]
        if not all(new):
            raise InvalidArgument("VOLUME specified can not be an empty string")
        state.config.volumes = {**(state.config.volumes or {}), **{path: {} for path in new}}

    return step


def _workdir(one: Instruction) -> Step:
    text = _one_text(one)

    def step(state: _State) -> None:
        path = _expanded(one, state, text)
        if not path:
            raise InvalidArgument("cannot normalize nothing")
        joined = posixpath.join("/", state.config.working_dir or "", path)
        state.config.working_dir = "/" + posixpath.normpath(joined).lstrip("/")

    return step


def _user(one: Instruction) -> Step:
    text = _one_text(one)

    def step(state: _State) -> None:
        state.config.user = _expanded(one, state, text)

    return step


def _stopsignal(one: Instruction) -> Step:
    text = _one_text(one)

    def step(state: _State) -> None:
        name = _expanded(one, state, text)
        if signals.parse(name) is None and not digits.whole(name):
            raise InvalidArgument(f"invalid signal: {name}")
        state.config.stop_signal = name

    return step


def _onbuild(one: Instruction) -> Step:
    text = _some(one, [one.rest] if one.rest else [])[0]
    word = text.split(None, 1)[0].upper()
    if word == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("MAINTAINER", "FROM"):
        raise InvalidArgument(f"{word} isn't allowed as an ONBUILD trigger")

    def step(state: _State) -> None:
        state.config.on_build = [*(state.config.on_build or []), text]

    return step


def _healthcheck(one: Instruction) -> Step:
    """``NONE``, or options and then ``CMD`` with a command; durations become nanoseconds, as Docker has them."""
    if not one.rest:
        raise InvalidArgument("HEALTHCHECK requires at least one argument")
    word, _, rest = one.rest.partition(" ")
    rest = rest.strip()
    command = lines.json_list(rest)
    if word.upper() == "NONE":
        if rest:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        check: DockerHealthcheck = {"Test": ["NONE"]}
    else:
        options = _options(one.flags)
        if word.upper() != "CMD":
            raise InvalidArgument(f'Unknown type "{word.upper()}" in HEALTHCHECK (try CMD)')
        if not rest or command == []:
            raise InvalidArgument("Missing command after HEALTHCHECK CMD")
        check = {"Test": ["CMD-SHELL", rest] if command is None else ["CMD", *command], **_check(options)}

    def step(state: _State) -> None:
        state.config.healthcheck = check

    return step


def _options(flags: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for flag in flags:
        name, equals, value = flag.partition("=")
        if name not in _DURATIONS and name != "retries":
            raise InvalidArgument(f"unknown flag: --{name}")
        if name in options:
            raise InvalidArgument(f"duplicate flag specified: {name}")
        if not equals:
            raise InvalidArgument(f"missing a value on flag: --{name}")
        options[name] = value
    return options


def _check(options: dict[str, str]) -> DockerHealthcheck:
    check: DockerHealthcheck = {}
    for name, key in _DURATIONS.items():
        if text := options.get(name):
            check[key] = _duration(name, text)
    if text := options.get("retries"):
        number = digits.whole(text.removeprefix("-"), (1 << 31) - 1)
        if number is None:
            why = "value out of range" if text.removeprefix("-").isdecimal() else "invalid syntax"
            raise InvalidArgument(f'strconv.ParseInt: parsing "{text}": {why}')
        if number and text.startswith("-"):
            raise InvalidArgument(f"--retries cannot be negative ({text})")
        check["Retries"] = number
    return {key: value for key, value in check.items() if value}


def _duration(name: str, text: str) -> int:
    """``1m30s`` in nanoseconds."""
    found = durations.parse(text)
    if found is None:
        what = "missing unit in duration" if re.fullmatch(r"[+-]?\d+(\.\d*)?", text) else "invalid duration"
        raise InvalidArgument(f'time: {what} "{text}"')
    if found and found < _SHORTEST_NS:
        raise InvalidArgument(f'Interval "{name}" cannot be less than 1ms')
    return found


_PAIRS = frozenset(("ENV", "LABEL"))
_READERS: dict[str, Callable[[Instruction], Step]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
