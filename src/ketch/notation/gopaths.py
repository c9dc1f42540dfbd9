"""Patterns of paths as Go's path.Match reads them, and Docker's with ``**``; none takes long, whatever it is.

``*`` and ``?`` match no slash, ``[^a-z]`` is one character, of any kind, ``\\`` takes a character for itself.
"""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NOTHING, _ANYTHING = "(?!)", r"[\s\S]"
_TRIES = 300_000  # of a regular expression, which may try all places of all stars: some milliseconds
"""Beyond that a path is looked at once, all places of a pattern at the same time, which mostly takes longer."""


class BadPatternError(ValueError):
    """The pattern ends within something, or has a range that is none."""


# -- of one level --------------------------------------------------------------------------------


def matches(pattern: str, name: str) -> bool:
    """Whether the pattern matches all of the name (BadPatternError)."""
    return compiled(pattern).match(name) is not None


@functools.lru_cache(100)
def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression that matches whole names as the pattern does (BadPatternError)."""
    chunks, at = [""], 0  # what is between the stars
    while at < len(pattern):
        if pattern[at] == "*":
            chunks.append("")
            at += 1
            continue
        piece, at = _piece(pattern, at)
        chunks[-1] += piece
    first, *others = chunks
    # Atomic: where a chunk was found first is where it is, as in Go.
    middle = "".join(f"(?>[^/]*?{chunk})" for chunk in others[:-1] if chunk)
    return re.compile(first + middle + (f"[^/]*{others[-1]}" if others else "") + r"\Z")


def has_wildcards(path: str) -> bool:
    """Whether a path has a wildcard that no backslash makes plain."""
    return re.search(r"[*?[]", re.sub(r"\\.", "", path, flags=re.DOTALL)) is not None


def _piece(pattern: str, at: int, *, strict: bool = False) -> tuple[str, int]:
    """The expression for one character at a place that is no star, and where it ends (BadPatternError)."""
    if pattern[at] == "[":
        return _class(pattern, at + 1, strict=strict)
    if pattern[at] == "?":
        return "[^/]", at + 1
    plain, at = _character(pattern, at, "")
    return re.escape(plain), at


def _character(pattern: str, at: int, special: str) -> tuple[str, int]:
    """One character, perhaps behind a backslash, and where it ends; those in ``special`` need that."""
    if at < len(pattern) and pattern[at] == "\\":
        at += 1
    elif pattern[at : at + 1] in special and special:
        raise BadPatternError(pattern)
    if at == len(pattern):
        raise BadPatternError(pattern)
    return pattern[at], at + 1


def _class(pattern: str, at: int, *, strict: bool) -> tuple[str, int]:
    """The class of characters in brackets, as a regular expression, and where it ends.

    A range that is none has no characters; with ``strict`` it is an error.
    """
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges, count = "", 0
    while not count or pattern[at : at + 1] != "]":
        low, at = _character(pattern, at, "-]")
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _character(pattern, at + 1, "-]")
        if strict and low > high:
            raise BadPatternError(pattern)
        ranges += f"{re.escape(low)}-{re.escape(high)}" if low <= high else ""
        count += 1
    if not ranges:
        return (_ANYTHING if negated else _NOTHING), at + 1
    return f"[{'^' if negated else ''}{ranges}]", at + 1


# -- of any level --------------------------------------------------------------------------------

_STAR, _ALL, _LEVELS = "[^/]*", "(?s:.*)", "(?:(?s:.*)/)?"


def docker_matcher(pattern: str) -> Callable[[str], bool]:
    """The matcher of a pattern in which ``**`` matches slashes, too, as in .dockerignore (BadPatternError)."""
    tokens = _tokens(pattern)
    expression = re.compile("".join(tokens) + r"\Z")
    stars = sum(token in (_STAR, _ALL, _LEVELS) for token in tokens)
    linear = _LinearMatcher(tokens)

    def matches_whole(path: str) -> bool:
        if stars > 1 and math.comb(len(path) + stars, stars) > _TRIES:
            return linear.matches(path)
        return expression.match(path) is not None

    return matches_whole


def _tokens(pattern: str) -> list[str]:
    """The parts of a pattern as regular expressions: stars, and single characters."""
    found: list[str] = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("**", at):
            at += 3 if pattern.startswith("**/", at) else 2
            found.append(_LEVELS if at < len(pattern) else _ALL)
            continue
        if pattern[at] == "*":
            found.append(_STAR)
            at += 1
            continue
        piece, at = _piece(pattern, at, strict=True)
        found.append(piece)
    return found


class _LinearMatcher:
    """A matcher that keeps all places in the pattern at once, one bit each, for each character of a path."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._singles: list[tuple[int, re.Pattern[str]]] = []
        self._known: dict[str, int] = {}
        self._stars = self._loops = self._levels = self._entries = 0
        bit = 1
        for token in tokens:
            if token == _LEVELS:  # its entry, from which it may be left out, and its loop, which a slash ends
                self._entries |= bit
                bit <<= 1
                self._levels |= bit
            elif token == _STAR:
                self._stars |= bit
            elif token == _ALL:
                self._loops |= bit
            else:
                self._singles.append((bit, re.compile(token)))
            bit <<= 1
        self._end = bit

    def matches(self, path: str) -> bool:
        """Whether it matches all of a path."""
        places = self._closed(1)
        for char in path:
            found = (places & self._of(char)) << 1 | places & (self._loops | self._levels)
            if char == "/":
                found |= (places & self._levels) << 1
            else:
                found |= places & self._stars
            places = self._closed(found)
            if not places:
                return False
        return bool(places & self._end)

    def _closed(self, places: int) -> int:
        """Places with those that are reached without a character."""
        while True:
            found = places | (places & (self._stars | self._loops | self._entries)) << 1
            found |= (places & self._entries) << 2
            if found == places:
                return places
            places = found

    def _of(self, char: str) -> int:
        """The places whose single character this may be."""
        found = self._known.get(char)
        if found is None:
            found = sum(bit for bit, expression in self._singles if expression.fullmatch(char))
            self._known[char] = found
        return found
