"""Two instructions, FROM and ARG: the beginning of a stage, and the arguments of a build."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.dockerfile.instructions import flags
from ketch.build.dockerfile.instructions.base import Instruction, blank_names, description, some_arguments

if TYPE_CHECKING:
    from ketch.build.dockerfile.parser import Statement

_NAME = re.compile(r"[a-z][a-z0-9\-_.]*\Z")


class From(Instruction, kw_only=True):
    """``FROM [--platform=P] BASE [AS NAME]``; the name in small letters."""

    base: str
    name: str = ""
    platform: str = ""
    description: str = ""


class ArgDefinition(msgspec.Struct, frozen=True):
    """One argument of a build; ``value`` is None where none is given."""

    name: str
    value: str | None = None
    description: str = ""


class Arg(Instruction, kw_only=True):
    """``ARG NAME[=VALUE]…``"""

    args: list[ArgDefinition]


def read_from(statement: Statement) -> From:
    """The beginning of a stage (DockerfileError)."""
    words = statement.arguments
    name = ""
    if len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not _NAME.match(name):
            message = f"invalid name for build stage: {quoted(words[2])}, "
            raise DockerfileError(f"{message}name can't start with a number or contain symbols", word=words[2])
    elif len(words) != 1:
        raise DockerfileError("FROM requires either one or three arguments")
    given = flags.read(statement, {"platform": flags.FlagKind.VALUE})
    return From(
        statement=statement,
        base=words[0],
        name=name,
        platform=given.text("platform"),
        description=description(statement, name),
    )


def read_arg(statement: Statement) -> Arg:
    """The arguments that a statement declares (DockerfileError)."""
    return Arg(statement=statement, args=[_definition(statement, word) for word in some_arguments(statement)])


def _definition(statement: Statement, word: str) -> ArgDefinition:
    name, equals, value = word.partition("=")
    if not name:
        raise blank_names(statement)
    return ArgDefinition(name, value if equals else None, description(statement, name))
