"""Here-documents: ``<<EOF`` and its kind in an instruction, and the lines that follow it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile import words
from ketch.build.dockerfile.errors import DockerfileError
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK = re.compile(r"(?P<fd>\d{0,20})<<(?P<chomp>-?)(?P<name>[^<]+)\Z", re.ASCII)
_TABS = re.compile(r"^\t+", re.MULTILINE)


class Heredoc(msgspec.Struct, frozen=True, kw_only=True):
    """One here-document; ``expand``: its name is not quoted; ``chomp``: written ``<<-``, tabs before its lines go."""

    name: str
    expand: bool
    chomp: bool
    fd: int
    content: str = ""

    def text(self) -> str:
        """The content as a file gets it."""
        return _TABS.sub("", self.content) if self.chomp else self.content


def mark(word: str) -> Heredoc | None:
    """The here-document that one word begins, still without its content."""
    match = _MARK.match(word)
    if match is None:
        return None
    plain = words.split(match["name"])
    raw = words.split(match["name"], raw=True)
    if len(plain) != 1 or len(raw) != 1:
        return None
    fd = int(match["fd"] or 0)
    return Heredoc(name=plain[0], expand=plain == raw, chomp=bool(match["chomp"]), fd=fd)


def marks(line: str) -> list[Heredoc]:
    """The here-documents that an instruction's line begins; none where its quotes are not closed."""
    try:
        found = words.split(line, raw=True)
    except InvalidArgument:
        return []
    return [one for word in found if (one := mark(word)) is not None]


def read(line: str, following: Iterator[str]) -> list[Heredoc]:
    """The here-documents of a line with their contents, for which lines with their ends are taken (DockerfileError)."""
    return [_filled(one, following) for one in marks(line)]


def _filled(one: Heredoc, following: Iterator[str]) -> Heredoc:
    content: list[str] = []
    for line in following:
        bare = line.rstrip("\r\n")
        if (bare.lstrip("\t") if one.chomp else bare) == one.name:
            return msgspec.structs.replace(one, content="".join(content))
        content.append(line)
    raise DockerfileError("unterminated heredoc", word=one.name)
