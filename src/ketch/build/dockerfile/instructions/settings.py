"""Instructions that only alter the image's configuration, other than its commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.dockerfile.instructions import flags
from ketch.build.dockerfile.instructions.base import Instruction, Pair, one_argument, pairs, some_arguments

if TYPE_CHECKING:
    from ketch.build.dockerfile.parser import Statement

_ONBUILD = re.compile(r"\s*ONBUILD\s*", re.IGNORECASE)


class Env(Instruction, kw_only=True):
    """``ENV KEY=VALUE…``"""

    pairs: list[Pair]


class Label(Instruction, kw_only=True):
    """``LABEL KEY=VALUE…``"""

    pairs: list[Pair]


class Expose(Instruction, kw_only=True):
    """``EXPOSE PORT[/PROTOCOL]…``"""

    ports: list[str]


class VolumeInstruction(Instruction, kw_only=True):
    """``VOLUME PATH…``"""

    paths: list[str]


class UserInstruction(Instruction, kw_only=True):
    """``USER NAME[:GROUP]``"""

    user: str


class Workdir(Instruction, kw_only=True):
    """``WORKDIR PATH``"""

    path: str


class StopSignal(Instruction, kw_only=True):
    """``STOPSIGNAL SIGNAL``"""

    signal: str


class Maintainer(Instruction, kw_only=True):
    """``MAINTAINER NAME``, which LABEL has replaced."""

    name: str


class Onbuild(Instruction, kw_only=True):
    """``ONBUILD INSTRUCTION``: what builds on top of the image do first; ``expression`` is its text."""

    expression: str


def read_env(statement: Statement) -> Env:
    """ENV (DockerfileError)."""
    flags.read(statement)
    return Env(statement=statement, pairs=pairs(statement))


def read_label(statement: Statement) -> Label:
    """LABEL (DockerfileError)."""
    flags.read(statement)
    return Label(statement=statement, pairs=pairs(statement))


def read_expose(statement: Statement) -> Expose:
    """EXPOSE (DockerfileError)."""
    ports = some_arguments(statement)
    flags.read(statement)
    return Expose(statement=statement, ports=ports)


def read_volume(statement: Statement) -> VolumeInstruction:
    """VOLUME (DockerfileError)."""
    given = some_arguments(statement)
    flags.read(statement)
    paths = [path.strip() for path in given]
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return VolumeInstruction(statement=statement, paths=paths)


def read_user(statement: Statement) -> UserInstruction:
    """USER (DockerfileError)."""
    user = one_argument(statement)
    flags.read(statement)
    return UserInstruction(statement=statement, user=user)


def read_workdir(statement: Statement) -> Workdir:
    """WORKDIR (DockerfileError)."""
    path = one_argument(statement)
    flags.read(statement)
    return Workdir(statement=statement, path=path)


def read_stop_signal(statement: Statement) -> StopSignal:
    """STOPSIGNAL (DockerfileError)."""
    signal = one_argument(statement)
    flags.read(statement)
    return StopSignal(statement=statement, signal=signal)


def read_maintainer(statement: Statement) -> Maintainer:
    """MAINTAINER (DockerfileError)."""
    name = one_argument(statement)
    flags.read(statement)
    return Maintainer(statement=statement, name=name)


def read_onbuild(statement: Statement) -> Onbuild:
    """ONBUILD (DockerfileError); what it triggers is judged when it is."""
    if statement.trigger is None:
        raise DockerfileError("ONBUILD requires at least one argument")
    flags.read(statement)
    trigger = statement.trigger.keyword
    if trigger == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("FROM", "MAINTAINER"):
        raise DockerfileError(f"{trigger} isn't allowed as an ONBUILD trigger", word=statement.trigger.name)
    documents = "".join(f"\n{one.content}{one.name}" for one in statement.heredocs)
    return Onbuild(statement=statement, expression=_ONBUILD.sub("", statement.line, count=1) + documents)
