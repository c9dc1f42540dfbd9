"""Quotes and variables in the words of a Dockerfile, as BuildKit's shell lexer treats them.

$A ${A}            its value, nothing when it is not set
${A:-w} ${A-w}     w when it is empty or not set (without the colon: when it is not set)
${A:+w} ${A+w}     w when it is not empty (is set)
${A:?w} ${A?w}     an error when it is empty or not set
${A#p} ${A##p} ${A%p} ${A%%p} ${A/p/w} ${A//p/w}     without a beginning or an end, or with w in its place
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.shell_patterns import ShellPattern
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[0-9]{1,1000}|[^\W\d]\w*")
_SPECIAL = "@*#?-$!0"
_NO_CHARACTER = "\ufffd"  # so Go writes the end of a text as a character


class _Wrong(Exception):
    """A word that cannot be expanded; the text says why."""


class Expansion(NamedTuple):
    """A word expanded: as one text, split at unquoted spaces, and the variables in it that are set and that are not."""

    text: str
    words: list[str]
    used: set[str]
    unset: set[str]


class ExpansionError(InvalidArgument):
    """A word that cannot be expanded; ``unset``: the variables in it that are not set."""

    def __init__(self, message: str, unset: set[str]) -> None:
        super().__init__(message)
        self.unset = unset


def expand(word: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """One word expanded (InvalidArgument)."""
    return _Lexer(word, variables, escape, _PLAIN).whole().text


def expand_words(word: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """A word expanded, and split at the spaces that came in by variables (InvalidArgument)."""
    return _Lexer(word, variables, escape, _PLAIN).whole().words


def expansion(word: str, variables: Mapping[str, str], escape: str = "\\") -> Expansion:
    """One word expanded, and which variables that took (InvalidArgument)."""
    return _Lexer(word, variables, escape, _PLAIN).whole()


def expand_document(text: str, variables: Mapping[str, str]) -> str:
    """The text of a here-document expanded, in which quotes are like any other character (InvalidArgument)."""
    return _Lexer(text, variables, "\\", _Mode(quotes=False)).whole().text


def shown(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """A shell's command as people are shown it: with the values of variables that are set, and its quotes."""
    try:
        return _Lexer(text, variables, escape, _Mode(raw=True, keep_unset=True)).whole().text
    except InvalidArgument:
        return text


def split(text: str, *, raw: bool = False) -> list[str]:
    """Words between spaces, variables left as they are; with ``raw`` quotes and escapes, too (InvalidArgument)."""
    return _Lexer(text, {}, "\\", _Mode(raw=raw, raw_escapes=raw, keep=True)).whole().words


class _Mode(NamedTuple):
    """The way in which a word is read.

    ``quotes`` have a meaning; ``raw``: they stay, and escapes with ``raw_escapes``; ``keep``: variables stay as they
    are written; ``keep_unset``: those that are not set do.
    """

    quotes: bool = True
    raw: bool = False
    raw_escapes: bool = False
    keep: bool = False
    keep_unset: bool = False


_PLAIN = _Mode()


class _Lexer:
    """One pass over a word."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str, mode: _Mode) -> None:
        self._text, self._variables, self._escape = text, variables, escape
        self._quotes, self._raw, self._raw_escapes, self._keep, self._keep_unset = mode
        self._at = 0
        self._used: set[str] = set()
        self._unset: set[str] = set()
        self._missing = False  # whether the variable that was looked up last is not set

    def whole(self) -> Expansion:
        try:
            pieces = self._until("")
        except (_Wrong, RecursionError) as e:
            why = e if isinstance(e, _Wrong) else "its substitutions are nested too deeply"
            raise ExpansionError(f"failed to process {quoted(self._text)}: {why}", self._unset) from e
        words: list[str] = []
        space = True
        for piece, raw in pieces:
            for part in [piece] if raw else re.split(r"(\s+)", piece):
                if not raw and not part.strip():
                    space = space or bool(part)
                elif space:
                    words.append(part)
                    space = False
                else:
                    words[-1] += part
        return Expansion("".join(piece for piece, _ in pieces), words, self._used, self._unset)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _until(self, stop: str, *, raw_escapes: bool = False) -> list[tuple[str, bool]]:
        """The text up to ``stop`` (empty: the end) in pieces, each with whether its spaces are quoted."""
        pieces: list[tuple[str, bool]] = []
        while char := self._peek():
            if stop and char == stop:
                self._take()
                return pieces
            if char == "'" and self._quotes:
                pieces.append((self._single_quoted(), True))
            elif char == '"' and self._quotes:
                pieces.append((self._double_quoted(), True))
            elif char == "$":
                pieces.append((self._dollar(), False))
            elif self._take() == self._escape:
                pieces += [(char, True)] if raw_escapes or self._raw_escapes else []
                pieces.append((self._take(), True))
            else:
                pieces.append((char, False))
        if stop:
            raise _Wrong(f"unexpected end of statement while looking for matching {stop}")
        return pieces

    def _text_until(self, stop: str, *, raw_escapes: bool = False) -> str:
        try:
            return "".join(piece for piece, _ in self._until(stop, raw_escapes=raw_escapes))
        except _Wrong as e:
            if self._peek():
                raise
            raise _Wrong("syntax error: missing '/' in ${}" if stop == "/" else "syntax error: missing '}'") from e

    def _single_quoted(self) -> str:
        self._take()
        end = self._text.find("'", self._at)
        if end < 0:
            raise _Wrong("unexpected end of statement while looking for matching single-quote")
        found, self._at = self._text[self._at : end], end + 1
        return f"'{found}'" if self._raw else found

    def _double_quoted(self) -> str:
        self._take()
        found = ""
        while char := self._peek():
            if char == "$":
                found += self._dollar()
                continue
            self._take()
            if char == '"':
                return f'"{found}"' if self._raw else found
            if char == self._escape and (self._peek() in ('"', "$", self._escape) or not self._peek()):
                char = (char if self._raw_escapes else "") + self._take()  # nothing at the end
            found += char
        raise _Wrong("unexpected end of statement while looking for matching double-quote")

    def _name(self) -> str:
        """A variable's name, a number, or one of the shell's special parameters."""
        match = _NAME.match(self._text, self._at)
        if match is None and self._peek() and self._peek() in _SPECIAL:
            return self._take()
        self._at = match.end() if match else self._at
        return match[0] if match else ""

    def _value(self, name: str) -> str | None:
        value = self._variables.get(name)
        self._missing = value is None
        (self._unset if self._missing else self._used).add(name)
        return value

    def _dollar(self) -> str:
        start, self._missing = self._at, False
        found = self._substitution()
        kept = self._keep or (self._keep_unset and self._missing)
        return self._text[start : self._at] if kept else found

    def _substitution(self) -> str:
        self._take()
        if self._peek() != "{":
            name = self._name()
            return (self._value(name) or "") if name else "$"
        self._take()
        if not self._peek():
            raise _Wrong("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise _Wrong("syntax error: bad substitution")
        name, modifier = self._name(), self._take()
        if modifier == "}":
            return self._value(name) or ""
        if modifier == "/":
            return self._replaced(name)
        colon = modifier == ":"
        modifier = self._take() if colon else modifier
        if not modifier or modifier not in ("#%+-?" if not colon else "+-?"):
            shown = ":" * colon + (modifier or _NO_CHARACTER)
            raise _Wrong(f"unsupported modifier ({shown}) in substitution")
        word = self._text_until("}", raw_escapes=modifier in "#%")
        if self._keep:
            return word
        value = self._value(name)
        if modifier in "#%":
            return _trimmed(modifier, word, value or "")
        return _chosen(name, value, modifier, word, colon=colon)

    def _replaced(self, name: str) -> str:
        every = self._peek() == "/"
        if every:
            self._take()
        pattern = self._text_until("/", raw_escapes=True)
        replacement = self._text_until("}", raw_escapes=True)
        value = self._value(name) or ""
        return _pattern(pattern).replaced(value, replacement, every=every)


def _chosen(name: str, value: str | None, modifier: str, word: str, *, colon: bool) -> str:
    """The value of a variable with ``-``, ``+`` or ``?``."""
    missing = value is None or (colon and not value)
    if modifier == "-":
        return word if missing else value or ""
    if modifier == "+":
        return "" if missing else word
    if missing:
        why = "is not allowed to be unset" if value is None else "is not allowed to be empty"
        raise _Wrong(f"{name}: {word or why}")
    return value or ""


def _trimmed(modifier: str, word: str, value: str) -> str:
    """A value without the beginning (``#``) or the end (``%``) that fits a pattern."""
    longest = word.startswith(modifier)
    pattern = _pattern(word[1:] if longest else word)
    if modifier == "#":
        return value[pattern.beginning(value, longest=longest) or 0 :]
    return value[: pattern.ending(value, longest=longest)]


def _pattern(text: str) -> ShellPattern:
    """A shell's pattern."""
    pieces: list[list[str | None]] = [[]]
    chars = iter(text)
    for char in chars:
        if char == "*":
            pieces.append([])
        elif char == "?":
            pieces[-1].append(None)
        elif char == "\\":
            escaped = next(chars, "")
            if not escaped or escaped not in "*?\\}/":
                raise _Wrong(f"invalid pattern ({text}) in substitution: invalid escape '\\{escaped or _NO_CHARACTER}'")
            pieces[-1].append(escaped)
        else:
            pieces[-1].append(char)
    return ShellPattern(pieces)
