"""Instructions that alter an image's configuration without running anything, as ``--change`` takes them.

All are read before the first is applied.  What they do, and their errors, are those of dockerd.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from ketch.build.dockerfile import parser, ports, words
from ketch.build.dockerfile.instructions import read
from ketch.build.dockerfile.instructions.commands import Cmd, Entrypoint, Healthcheck
from ketch.build.dockerfile.instructions.settings import (
    Env,
    Expose,
    Label,
    Onbuild,
    StopSignal,
    UserInstruction,
    VolumeInstruction,
    Workdir,
)
from ketch.errors import InvalidArgument
from ketch.notation import digits, signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.build.dockerfile.instructions.base import Instruction
    from ketch.build.dockerfile.instructions.commands import CommandLine
    from ketch.oci.config import DockerHealthcheck, RunConfig

KEYWORDS = frozenset(
    (
        *("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL"),
        *("ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    )
)

_SHELL = ["/bin/sh", "-c"]


class _State:
    """A configuration while instructions are applied to it; ``has_command``: one of them was CMD."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.has_command = False

    def variables(self) -> dict[str, str]:
        return {name: value for name, _, value in (item.partition("=") for item in self.config.env or ())}

    def expanded(self, one: Instruction, text: str) -> str:
        return words.expand(text, self.variables(), one.statement.escape)


def apply(config: RunConfig, changes: Sequence[str]) -> None:
    """Apply instructions such as ``CMD ["sh"]`` or ``ENV A=b``, in order; InvalidArgument for others."""
    if not changes:
        return
    found = parser.parse("\n".join(changes)).statements
    for one in found:
        if one.keyword not in KEYWORDS:
            raise InvalidArgument(f"{one.name} is not a valid change command")
    instructions = [read.instruction(one) for one in found]
    state = _State(config)
    for instruction in instructions:
        _STEPS[type(instruction)](state, instruction)


def _env(state: _State, one: Env) -> None:
    variables = state.variables()
    merged = {item.partition("=")[0]: item for item in state.config.env or ()}
    for pair in one.pairs:
        key, value = (words.expand(text, variables, one.statement.escape) for text in (pair.key, pair.value))
        merged[key] = f"{key}={value}"
    state.config.env = list(merged.values())


def _label(state: _State, one: Label) -> None:
    new = {state.expanded(one, pair.key): state.expanded(one, pair.value) for pair in one.pairs}
    state.config.labels = {**(state.config.labels or {}), **new}


def _command(state: _State, command: CommandLine) -> list[str]:
    return [*(state.config.shell or _SHELL), *command.words] if command.shell else command.words


def _cmd(state: _State, one: Cmd) -> None:
    state.config.cmd = _command(state, one.command)
    state.has_command = bool(one.command.words)


def _entrypoint(state: _State, one: Entrypoint) -> None:
    state.config.entrypoint = _command(state, one.command) if one.command.words else None
    if not state.has_command:
        state.config.cmd = None


def _expose(state: _State, one: Expose) -> None:
    variables = state.variables()
    specs = [spec for port in one.ports for spec in words.expand_words(port, variables, one.statement.escape)]
    new = [port for spec in specs for port in ports.exposed(spec)]
    state.config.exposed_ports = {**(state.config.exposed_ports or {}), **{port: {} for port in new}}


def _volume(state: _State, one: VolumeInstruction) -> None:
    new = [state.expanded(one, path) for path in one.paths]
    if not all(new):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    state.config.volumes = {**(state.config.volumes or {}), **{path: {} for path in new}}


def _workdir(state: _State, one: Workdir) -> None:
    path = state.expanded(one, one.path)
    if not path:
        raise InvalidArgument("cannot normalize nothing")
    joined = posixpath.join("/", state.config.working_dir or "", path)
    state.config.working_dir = "/" + posixpath.normpath(joined).lstrip("/")


def _user(state: _State, one: UserInstruction) -> None:
    state.config.user = state.expanded(one, one.user)


def _stop_signal(state: _State, one: StopSignal) -> None:
    name = state.expanded(one, one.signal)
    if signals.parse(name) is None and not digits.whole(name):
        raise InvalidArgument(f"invalid signal: {name}")
    state.config.stop_signal = name


def _onbuild(state: _State, one: Onbuild) -> None:
    state.config.on_build = [*(state.config.on_build or []), one.expression]


def _healthcheck(state: _State, one: Healthcheck) -> None:
    check: DockerHealthcheck = {
        "Interval": one.interval,
        "Timeout": one.timeout,
        "StartPeriod": one.start_period,
        "StartInterval": one.start_interval,
        "Retries": one.retries,
    }
    state.config.healthcheck = {"Test": one.test, **{key: value for key, value in check.items() if value}}


_STEPS: dict[type[Instruction], Callable[[_State, Any], None]] = {
    Cmd: _cmd,
    Entrypoint: _entrypoint,
    Env: _env,
    Expose: _expose,
    Healthcheck: _healthcheck,
    Label: _label,
    Onbuild: _onbuild,
    StopSignal: _stop_signal,
    UserInstruction: _user,
    VolumeInstruction: _volume,
    Workdir: _workdir,
}
