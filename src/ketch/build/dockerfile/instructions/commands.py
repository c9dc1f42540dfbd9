"""CMD, ENTRYPOINT, SHELL and HEALTHCHECK: what an image runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.dockerfile.instructions import flags
from ketch.build.dockerfile.instructions.base import Instruction, some_arguments
from ketch.build.dockerfile.instructions.flags import FlagKind
from ketch.notation import digits, durations

if TYPE_CHECKING:
    from ketch.build.dockerfile.heredocs import Heredoc
    from ketch.build.dockerfile.parser import Statement

_HEALTHCHECK = {
    "interval": FlagKind.VALUE,
    "timeout": FlagKind.VALUE,
    "start-period": FlagKind.VALUE,
    "start-interval": FlagKind.VALUE,
    "retries": FlagKind.VALUE,
}
_SHORTEST_NS = 10**6


class CommandLine(msgspec.Struct, frozen=True):
    """A command as it is written; ``shell``: the image's shell is put before it."""

    words: list[str]
    shell: bool
    heredocs: list[Heredoc] = []


class Cmd(Instruction, kw_only=True):
    """``CMD COMMAND`` or ``CMD ["PROGRAM", …]``"""

    command: CommandLine


class Entrypoint(Instruction, kw_only=True):
    """``ENTRYPOINT COMMAND`` or ``ENTRYPOINT ["PROGRAM", …]``"""

    command: CommandLine


class Shell(Instruction, kw_only=True):
    """``SHELL ["PROGRAM", …]``"""

    words: list[str]


class Healthcheck(Instruction, kw_only=True):
    """``HEALTHCHECK [FLAGS] CMD COMMAND`` or ``HEALTHCHECK NONE``: in an image's form, times in nanoseconds."""

    test: list[str]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


def command_line(statement: Statement) -> CommandLine:
    """A statement's arguments as a command."""
    return CommandLine(statement.arguments, not statement.json, statement.heredocs)


def read_cmd(statement: Statement) -> Cmd:
    """CMD (DockerfileError)."""
    flags.read(statement)
    return Cmd(statement=statement, command=command_line(statement))


def read_entrypoint(statement: Statement) -> Entrypoint:
    """ENTRYPOINT (DockerfileError)."""
    flags.read(statement)
    return Entrypoint(statement=statement, command=command_line(statement))


def read_shell(statement: Statement) -> Shell:
    """SHELL (DockerfileError)."""
    flags.read(statement)
    words = some_arguments(statement)
    if not statement.json:
        raise DockerfileError("SHELL requires the arguments to be in JSON form")
    return Shell(statement=statement, words=words)


def read_healthcheck(statement: Statement) -> Healthcheck:
    """HEALTHCHECK (DockerfileError)."""
    kind, *command = some_arguments(statement)
    if kind.upper() == "NONE":
        if command:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(statement=statement, test=["NONE"])
    given = flags.read(statement, _HEALTHCHECK)
    if kind.upper() != "CMD":
        raise DockerfileError(f"Unknown type {quoted(kind.upper())} in HEALTHCHECK (try CMD)", word=kind)
    if not command:
        raise DockerfileError("Missing command after HEALTHCHECK CMD")
    return Healthcheck(
        statement=statement,
        test=["CMD" if statement.json else "CMD-SHELL", *command],
        interval=_duration("interval", given.text("interval")),
        timeout=_duration("timeout", given.text("timeout")),
        start_period=_duration("start-period", given.text("start-period")),
        start_interval=_duration("start-interval", given.text("start-interval")),
        retries=_retries(given.text("retries")),
    )


def _duration(name: str, text: str) -> int:
    """``1m30s`` in nanoseconds."""
    if not text:
        return 0
    found = durations.parse(text)
    if found is None:
        what = "missing unit in duration" if re.fullmatch(r"[+-]?\d+(\.\d*)?", text) else "invalid duration"
        raise DockerfileError(f'time: {what} "{text}"', word=text)
    if found and found < _SHORTEST_NS:
        raise DockerfileError(f'Interval "{name}" cannot be less than 1ms', word=text)
    return found


def _retries(text: str) -> int:
    if not text:
        return 0
    number = digits.whole(text.removeprefix("-"), (1 << 31) - 1)
    if number is None:
        why = "value out of range" if text.removeprefix("-").isdecimal() else "invalid syntax"
        raise DockerfileError(f'strconv.ParseInt: parsing "{text}": {why}', word=text)
    if number and text.startswith("-"):
        raise DockerfileError(f"--retries cannot be negative ({text})", word=text)
    return number
