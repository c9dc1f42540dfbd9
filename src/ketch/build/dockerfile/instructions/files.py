"""COPY and ADD."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile import heredocs
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.dockerfile.instructions import flags
from ketch.build.dockerfile.instructions.base import Instruction
from ketch.build.dockerfile.instructions.flags import FlagKind

if TYPE_CHECKING:
    from ketch.build.dockerfile.parser import Statement

_COMMON = {"chmod": FlagKind.VALUE, "chown": FlagKind.VALUE, "exclude": FlagKind.VALUES, "link": FlagKind.SWITCH}
_COPY = {**_COMMON, "from": FlagKind.VALUE, "parents": FlagKind.SWITCH}
_ADD = {**_COMMON, "checksum": FlagKind.VALUE, "keep-git-dir": FlagKind.SWITCH, "unpack": FlagKind.SWITCH}


class InlineFile(msgspec.Struct, frozen=True):
    """A source that is written in the Dockerfile itself; ``expand``: variables in it are replaced."""

    path: str
    content: str
    expand: bool


class _Files(Instruction, kw_only=True):
    """The fields that both have."""

    sources: list[str]
    inline: list[InlineFile]
    destination: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: list[str] = []


class Copy(_Files, kw_only=True):
    """``COPY [FLAGS] SOURCE… DESTINATION``"""

    source_stage: str = ""
    parents: bool = False


class Add(_Files, kw_only=True):
    """``ADD [FLAGS] SOURCE… DESTINATION``; ``unpack``: None is as the source asks for."""

    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None


def read_copy(statement: Statement) -> Copy:
    """COPY (DockerfileError)."""
    _check_number(statement)
    given = flags.read(statement, _COPY)
    sources, inline, destination = _sources(statement)
    return Copy(
        statement=statement,
        sources=sources,
        inline=inline,
        destination=destination,
        chown=given.text("chown"),
        chmod=given.text("chmod"),
        link=bool(given.switch("link")),
        exclude=given.texts("exclude"),
        source_stage=given.text("from"),
        parents=bool(given.switch("parents")),
    )


def read_add(statement: Statement) -> Add:
    """ADD (DockerfileError)."""
    _check_number(statement)
    given = flags.read(statement, _ADD)
    sources, inline, destination = _sources(statement)
    return Add(
        statement=statement,
        sources=sources,
        inline=inline,
        destination=destination,
        chown=given.text("chown"),
        chmod=given.text("chmod"),
        link=bool(given.switch("link")),
        exclude=given.texts("exclude"),
        checksum=given.text("checksum"),
        keep_git_dir=given.switch("keep-git-dir"),
        unpack=given.switch("unpack"),
    )


def _check_number(statement: Statement) -> None:
    if len(statement.arguments) < 2:
        raise DockerfileError(
            f"{statement.keyword} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )


def _sources(statement: Statement) -> tuple[list[str], list[InlineFile], str]:
    """Paths, files from here-documents, and where they go."""
    *words, destination = statement.arguments
    if heredocs.mark(destination):
        raise DockerfileError(f"{statement.keyword} cannot accept a heredoc as a destination", word=destination)
    contents = {one.name: one.content for one in statement.heredocs}
    paths: list[str] = []
    inline: list[InlineFile] = []
    for word in words:
        if (one := heredocs.mark(word)) is None:
            paths.append(word)
        else:
            whole = msgspec.structs.replace(one, content=contents.get(one.name, ""))
            inline.append(InlineFile(one.name, whole.text(), one.expand))
    return paths, inline, destination
