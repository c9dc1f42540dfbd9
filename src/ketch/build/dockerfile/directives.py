"""Directives: comments such as ``# syntax=…`` that stand before everything else in a Dockerfile."""

from __future__ import annotations

import re

import msgspec

from ketch.build.dockerfile.errors import DockerfileError, Span

NAMES = frozenset(("check", "escape", "syntax"))

_FORM = re.compile(r"\s*(?P<name>[a-zA-Z][a-zA-Z0-9]*)\s*=\s*(?P<value>.+?)\s*\Z")


class Directive(msgspec.Struct, frozen=True):
    """One directive; the name in small letters."""

    name: str
    value: str
    span: Span


class DirectiveReader:
    """Reads lines from a file's beginning on, until one is no directive: from there on there are none."""

    def __init__(self, mark: str = "#", line: int = 0) -> None:
        self._mark, self._line, self._done = mark, line, False
        self.found: dict[str, Directive] = {}

    def read(self, line: str) -> Directive | None:
        """The directive in the next line; a name for the second time is an error."""
        self._line += 1
        match = _FORM.match(line.removeprefix(self._mark)) if line.startswith(self._mark) and not self._done else None
        name = match["name"].lower() if match else ""
        if match is None or name not in NAMES:
            self._done = True
            return None
        span = Span(self._line, self._line)
        if name in self.found:
            raise DockerfileError(f"only one {name} parser directive can be used", span=span)
        self.found[name] = Directive(name, match["value"], span)
        return self.found[name]


def syntax(text: str) -> Directive | None:
    """Which front end a file asks for, in any of the forms that BuildKit knows.

    ``# syntax=…``, ``// syntax=…`` or a JSON object with that key; a first line with ``#!`` does not count.
    """
    return _first("syntax", text, "#") or _first("syntax", text, "//") or _in_json("syntax", text)


def check(text: str) -> Directive | None:
    """The options of the checks that a file has for itself."""
    return _first("check", text, "#")


def _without_shebang(text: str) -> tuple[str, int]:
    text = text.removeprefix("\ufeff")
    first, _, rest = text.partition("\n")
    return (rest, 1) if first.startswith("#!") else (text, 0)


def _first(name: str, text: str, mark: str) -> Directive | None:
    rest, skipped = _without_shebang(text)
    reader = DirectiveReader(mark, skipped)
    try:
        for line in rest.split("\n"):
            if reader.read(line) is None:
                break
    except DockerfileError:
        pass  # the parser says it; those before it are known
    return reader.found.get(name)


def _in_json(name: str, text: str) -> Directive | None:
    rest, skipped = _without_shebang(text)
    try:
        value = msgspec.json.decode(rest.encode("utf-8", "surrogateescape"), type=dict[str, object]).get(name)
    except (msgspec.DecodeError, RecursionError):
        return None
    return Directive(name, value, Span(skipped + 1, skipped + 1)) if isinstance(value, str) else None
