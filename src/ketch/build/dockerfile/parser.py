"""A Dockerfile's text as statements: what is written on which lines, as BuildKit's parser reads it.

Nothing is judged here that needs to know what an instruction means (``instructions/`` does that), nor are variables
expanded.  Texts that were decoded with ``surrogateescape`` keep their bytes.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile import arguments, heredocs
from ketch.build.dockerfile.directives import Directive, DirectiveReader
from ketch.build.dockerfile.errors import DockerfileError, Span
from ketch.dockerignore import SPACES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.build.dockerfile.heredocs import Heredoc

LONGEST_LINE = (1 << 16) - 1
"""Bytes of a line, its end not counted."""

_DEEPEST = 20  # a trigger that triggers is refused, and need not be read to its end
_WITH_HEREDOCS = frozenset(("ADD", "COPY", "RUN"))


class Statement(msgspec.Struct, kw_only=True):
    """One instruction as it is written.

    ``name`` is spelt as in the file; ``flags`` have their dashes; ``arguments`` depend on the instruction: the words
    of a list, keys and values in turn, or one text.  ``json``: they were a JSON array; ``old_pairs``: a key and its
    value without an equals sign; ``line``: the whole without line breaks; ``comments``: the lines of comment above.
    """

    name: str
    span: Span
    line: str
    escape: str = "\\"
    flags: list[str] = []
    arguments: list[str] = []
    json: bool = False
    old_pairs: bool = False
    heredocs: list[Heredoc] = []
    comments: list[str] = []
    trigger: Statement | None = None
    """What ONBUILD has behind it."""

    @property
    def keyword(self) -> str:
        """The name in capitals."""
        return self.name.upper()


class Dockerfile(msgspec.Struct, kw_only=True):
    """A parsed file; ``empty_continuations``: instructions with an empty line among their continued ones."""

    statements: list[Statement]
    escape: str
    directives: dict[str, Directive]
    empty_continuations: list[Span]


def parse(text: str) -> Dockerfile:
    """The statements of a file; DockerfileError where it cannot be read, or has none."""
    return _Reader(text).dockerfile()


class _Reader:
    """One pass over a file's lines."""

    def __init__(self, text: str) -> None:
        self._lines = self._counted(text.removeprefix("\ufeff"))
        self._number = 0
        self._directives = DirectiveReader()
        self._escape = "\\"
        self._continued = _continuation("\\")
        self._empty: list[Span] = []

    def dockerfile(self) -> Dockerfile:
        statements: list[Statement] = []
        comments: list[str] = []
        for line in self._lines:
            bare = self._without_comment(line.lstrip(SPACES))
            if bare is None:
                comment = line.lstrip(SPACES)[1:].strip(SPACES)
                comments = [*comments, comment] if comment else []
            elif bare:
                statements.append(self._statement(bare, comments))
                comments = []
        if not statements:
            raise DockerfileError("file with no instructions", span=Span(max(self._number, 1), max(self._number, 1)))
        return Dockerfile(
            statements=statements,
            escape=self._escape,
            directives=self._directives.found,
            empty_continuations=self._empty,
        )

    def _counted(self, text: str) -> Iterator[str]:
        """The lines with their ends; each is counted when it is taken."""
        for line in _lines(text):
            self._number += 1
            if len(line) > LONGEST_LINE // 4 and len(_encoded(line.removesuffix("\n"))) > LONGEST_LINE:
                raise DockerfileError(
                    f"dockerfile line greater than max allowed size of {LONGEST_LINE}",
                    span=Span(self._number, self._number),
                )
            yield line

    def _without_comment(self, line: str) -> str | None:
        """A line without its end, None for a comment; directives are taken note of."""
        bare = line.rstrip("\r\n")
        directive = self._directives.read(bare)
        if directive and directive.name == "escape":
            if directive.value not in ("\\", "`"):
                message = f"invalid escape token '{directive.value}' does not match ` or \\"
                raise DockerfileError(message, span=directive.span, word=directive.value)
            self._escape, self._continued = directive.value, _continuation(directive.value)
        return None if bare.startswith("#") else bare

    def _statement(self, first: str, comments: list[str]) -> Statement:
        start = self._number
        try:
            line = self._joined(first)
            found = statement(line, self._escape)
            if "<<" in line and _takes_heredocs(found):
                found.heredocs = heredocs.read(line, self._lines)
        except DockerfileError as e:
            e.span = e.span or Span(start, self._number)
            raise
        found.span, found.comments = Span(start, self._number), comments
        if found.trigger:
            found.trigger.span = found.span
        return found

    def _joined(self, first: str) -> str:
        """An instruction's lines without their breaks; comments and empty lines among them go."""
        start = self._number
        parts, more = self._cut(first)
        empty = False
        for line in self._lines if more else ():
            bare = line.rstrip("\r\n")
            if bare.lstrip(SPACES).startswith("#"):
                continue
            if not bare.lstrip(SPACES):
                empty = True
                continue
            part, more = self._cut(bare)
            parts += part
            if not more:
                break
        if empty:
            self._empty.append(Span(start, self._number))
        return parts

    def _cut(self, line: str) -> tuple[str, bool]:
        """A line without the character that continues it, and whether there was one."""
        shorter = self._continued.sub("", line)
        return shorter, shorter != line


def _lines(text: str) -> Iterator[str]:
    """Lines that end with a line feed, and with nothing else that Python takes for an end."""
    parts = text.split("\n")
    yield from itertools.chain((f"{part}\n" for part in parts[:-1]), parts[-1:] if parts[-1] else ())


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape" if any("\udc80" <= char <= "\udcff" for char in text) else "replace")


def _continuation(escape: str) -> re.Pattern[str]:
    mark = re.escape(escape)
    return re.compile(rf"(?:(?<=[^{mark}])|\A){mark}[ \t]*\Z")


def _takes_heredocs(found: Statement) -> bool:
    one = found.trigger or found
    return one.keyword in _WITH_HEREDOCS and not one.json


def statement(line: str, escape: str = "\\", *, depth: int = 0) -> Statement:
    """One instruction of one line, behind so many ONBUILD (DockerfileError)."""
    name, flags, rest = arguments.split_line(line)
    found = Statement(name=name, span=Span(1, 1), line=line, escape=escape, flags=flags)
    keyword = found.keyword
    if keyword in ("ENV", "LABEL"):
        found.arguments, found.old_pairs = arguments.pairs(rest, keyword, escape)
    elif keyword == "ARG":
        found.arguments = arguments.quoted_words(rest, escape)
    elif keyword in ("EXPOSE", "FROM"):
        found.arguments = arguments.blank_separated(rest)
    elif keyword in ("ADD", "COPY", "VOLUME"):
        exact = arguments.json_list(rest)
        found.json = exact is not None
        found.arguments = arguments.blank_separated(rest) if exact is None else exact
    elif keyword in ("CMD", "ENTRYPOINT", "RUN", "SHELL"):
        found.arguments, found.json = _command(rest)
    elif keyword == "HEALTHCHECK":
        kind, *more = re.split(f"[{SPACES}]+", rest, maxsplit=1)
        command, found.json = _command(more[0] if more else "")
        found.arguments = [kind, *command] if kind else []
    elif keyword == "ONBUILD":
        if rest and depth < _DEEPEST:
            found.trigger = statement(rest, escape, depth=depth + 1)
    elif keyword in ("MAINTAINER", "STOPSIGNAL", "USER", "WORKDIR"):
        found.arguments = [rest] if rest else []
    return found


def _command(text: str) -> tuple[list[str], bool]:
    exact = arguments.json_list(text)
    if exact is not None:
        return exact, True
    return [text] if text else [], False
