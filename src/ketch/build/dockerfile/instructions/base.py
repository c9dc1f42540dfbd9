"""The base of all instructions, and the checks that several share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile.errors import DockerfileError

if TYPE_CHECKING:
    from ketch.build.dockerfile.errors import Span
    from ketch.build.dockerfile.parser import Statement


class Instruction(msgspec.Struct, kw_only=True):
    """One instruction; its texts are not expanded yet."""

    statement: Statement

    @property
    def keyword(self) -> str:
        """The name in capitals."""
        return self.statement.keyword

    @property
    def span(self) -> Span:
        """Its lines in the file."""
        return self.statement.span


class Pair(msgspec.Struct, frozen=True):
    """A key and its value."""

    key: str
    value: str


def one_argument(statement: Statement) -> str:
    """The argument of an instruction that takes one text (DockerfileError)."""
    if len(statement.arguments) != 1:
        raise DockerfileError(f"{statement.keyword} requires exactly one argument")
    return statement.arguments[0]


def some_arguments(statement: Statement) -> list[str]:
    """The arguments of an instruction that needs at least one (DockerfileError)."""
    if not statement.arguments:
        raise DockerfileError(f"{statement.keyword} requires at least one argument")
    return statement.arguments


def pairs(statement: Statement) -> list[Pair]:
    """Keys and values (DockerfileError for none, or for a key without a name)."""
    found = some_arguments(statement)
    result = [Pair(key, value) for key, value in zip(found[::2], found[1::2], strict=True)]
    if not all(pair.key for pair in result):
        raise blank_names(statement)
    return result


def blank_names(statement: Statement) -> DockerfileError:
    """The complaint about a variable or label without a name."""
    return DockerfileError(f"{statement.keyword} names can not be blank")


def description(statement: Statement, name: str) -> str:
    """The description of a stage or an argument in a comment above it: ``# NAME what it is``."""
    beginning = f"{name} "
    return next(
        (line.removeprefix(beginning) for line in statement.comments if name and line.startswith(beginning)), ""
    )
