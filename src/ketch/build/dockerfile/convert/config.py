"""Instructions that change a stage's variables and the image's configuration; WORKDIR, which makes a directory, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ketch.build.dockerfile import ports, scopes
from ketch.build.dockerfile.convert import gotext, scans
from ketch.build.dockerfile.convert.owners import chown
from ketch.build.dockerfile.convert.state import joined
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.dockerfile.instructions.commands import Cmd, Entrypoint, Healthcheck, Shell
from ketch.build.dockerfile.instructions.settings import (
    Env,
    Expose,
    Label,
    Maintainer,
    Onbuild,
    StopSignal,
    UserInstruction,
    VolumeInstruction,
    Workdir,
)
from ketch.build.dockerfile.instructions.stages import Arg
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import Action, files
from ketch.notation import digits, durations, signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ketch.build.dockerfile.convert.state import StageState
    from ketch.build.dockerfile.instructions.base import Instruction
    from ketch.build.dockerfile.instructions.commands import CommandLine
    from ketch.oci.config import DockerHealthcheck

_SHELL = ["/bin/sh", "-c"]


def in_shell(state: StageState, texts: list[str]) -> list[str]:
    """A command as the stage's shell runs it."""
    return [*(state.config.shell or _SHELL), " ".join(texts)]


def _env(state: StageState, one: Env) -> None:
    new = [(state.expand(one, pair.key), state.expand(one, pair.value)) for pair in one.pairs]
    env = list(state.config.env or ())
    for name, value in new:
        state.set(name, value)
        same = next((n for n, item in enumerate(env) if item.partition("=")[0] == name), len(env))
        env[same : same + 1] = [f"{name}={value}"]
    state.config.env = env
    _note(state, "ENV", *(f"{name}={value}" for name, value in new))


def _arg(state: StageState, one: Arg) -> None:
    given, scope = state.build.options.args, state.build.scope.values
    shown: list[str] = []
    for arg in one.args:
        value = given.get(arg.name)
        if value is None and arg.value is None:
            value = scope.get(arg.name)
        elif value is None and arg.value is not None:
            value = state.expand(one, arg.value)
        if value is not None and arg.name not in scans.ARGS:
            state.set(arg.name, value)
        state.args.append((arg.name, value))
        shown.append(arg.name if value is None else f"{arg.name}={value}")
    _note(state, "ARG", *shown)


def _label(state: StageState, one: Label) -> None:
    new = [(state.expand(one, pair.key), state.expand(one, pair.value)) for pair in one.pairs]
    state.config.labels = {**(state.config.labels or {}), **dict(new)}
    _note(state, "LABEL", *(f"{name}={value}" for name, value in new))


def _maintainer(state: StageState, one: Maintainer) -> None:
    state.image.author = one.name
    _note(state, "MAINTAINER", one.name)


def _command_line(state: StageState, command: CommandLine) -> list[str]:
    return in_shell(state, command.words) if command.shell else list(command.words)


def _cmd(state: StageState, one: Cmd) -> None:
    state.config.cmd = _command_line(state, one.command)
    state.config.args_escaped = True
    state.has_command = True
    _note(state, "CMD", gotext.quoted_list(state.config.cmd))


def _entrypoint(state: StageState, one: Entrypoint) -> None:
    state.config.entrypoint = _command_line(state, one.command)
    if not state.has_command:
        state.config.cmd = None
    _note(state, "ENTRYPOINT", gotext.quoted_list(state.config.entrypoint))


def _shell(state: StageState, one: Shell) -> None:
    state.config.shell = list(one.words)
    _note(state, "SHELL", gotext.listed(one.words))


def _healthcheck(state: StageState, one: Healthcheck) -> None:
    times = {
        "Interval": one.interval,
        "Timeout": one.timeout,
        "StartPeriod": one.start_period,
        "StartInterval": one.start_interval,
    }
    check: DockerHealthcheck = {"Test": one.test, **times, "Retries": one.retries}
    state.config.healthcheck = {key: value for key, value in check.items() if value}
    shown = " ".join(f'"{durations.write(time)}"' for time in times.values())
    _note(state, "HEALTHCHECK", f"&{{{gotext.quoted_list(one.test)} {shown} {gotext.quoted_rune(one.retries)}}}")


def _expose(state: StageState, one: Expose) -> None:
    new: list[str] = []
    for written in one.ports:
        for spec in scopes.expanded(written, state.variables, one.statement.escape, one.span).words:
            new += ports.exposed_in_file(spec)
    state.config.exposed_ports = {**(state.config.exposed_ports or {}), **{port: {} for port in new}}
    _note(state, "EXPOSE", gotext.listed(sorted(new)))


def _user(state: StageState, one: UserInstruction) -> None:
    state.config.user = state.expand(one, one.user)
    _note(state, "USER", state.config.user)


def _volume(state: StageState, one: VolumeInstruction) -> None:
    new = [state.expand(one, path) for path in one.paths]
    if not all(new):
        raise DockerfileError("VOLUME specified can not be an empty string")
    state.config.volumes = {**(state.config.volumes or {}), **{path: {} for path in new}}
    _note(state, "VOLUME", gotext.listed(new))


def _stop_signal(state: StageState, one: StopSignal) -> None:
    name = state.expand(one, one.signal)
    if signals.parse(name) is None and not digits.whole(name):
        raise DockerfileError(f"invalid signal: {name}", word=one.signal)
    state.config.stop_signal = name
    _note(state, "STOPSIGNAL", name)


def _onbuild(state: StageState, one: Onbuild) -> None:
    state.config.on_build = [*(state.config.on_build or ()), one.expression]


def _workdir(state: StageState, one: Workdir) -> None:
    directory = state.config.working_dir = joined(state.directory, state.expand(one, one.path))
    if directory != "/":
        made = pb.FileActionMkDir(path=directory, mode=0o755, makeParents=True, timestamp=-1)
        if state.config.user:
            made.owner.CopyFrom(chown(state.config.user))
        if state.build.epoch is not None:
            made.timestamp = state.build.epoch * 10**9
        metadata = state.metadata(state.named(one))
        state.edge = files(state.edge, [Action(pb.FileAction(mkdir=made))], None, metadata)
        state.place(state.edge, one)
    state.remember(f"WORKDIR {directory}", layer=directory != "/")


def _note(state: StageState, *words: str) -> None:
    state.remember(" ".join(words), layer=False)


STEPS: Mapping[type[Instruction], Callable[[StageState, Any], None]] = {
    Arg: _arg,
    Cmd: _cmd,
    Entrypoint: _entrypoint,
    Env: _env,
    Expose: _expose,
    Healthcheck: _healthcheck,
    Label: _label,
    Maintainer: _maintainer,
    Onbuild: _onbuild,
    Shell: _shell,
    StopSignal: _stop_signal,
    UserInstruction: _user,
    VolumeInstruction: _volume,
    Workdir: _workdir,
}
