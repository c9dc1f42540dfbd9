"""Patterns of names as Go's path.Match reads them: ``*`` and ``?`` match no slash, ``[^a-z]`` is one character."""

from __future__ import annotations

import functools
import re

_NOTHING, _ANYTHING = "(?!)", r"[\s\S]"


class BadPatternError(ValueError):
    """The pattern ends within something, or has a range that is none."""


def matches(pattern: str, name: str) -> bool:
    """Whether the pattern matches all of the name (BadPatternError)."""
    return compiled(pattern).fullmatch(name) is not None


@functools.lru_cache(100)
def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression that matches whole names as the pattern does (BadPatternError)."""
    chunks, at = [""], 0  # what is between the stars
    while at < len(pattern):
        character = pattern[at]
        if character == "*":
            chunks.append("")
            at += 1
            continue
        if character == "[":
            piece, at = _class(pattern, at + 1)
        elif character == "?":
            piece, at = "[^/]", at + 1
        else:
            plain, at = _character(pattern, at, "")
            piece = re.escape(plain)
        chunks[-1] += piece
    first, *others = chunks
    # Atomic: where a chunk was found first is where it is, so that no pattern takes long.
    middle = "".join(f"(?>[^/]*?{chunk})" for chunk in others[:-1] if chunk)
    return re.compile(first + middle + (f"[^/]*{others[-1]}" if others else ""))


def _character(pattern: str, at: int, special: str) -> tuple[str, int]:
    """One character, perhaps behind a backslash, and where it ends; those in ``special`` need that."""
    if at < len(pattern) and pattern[at] == "\\":
        at += 1
    elif pattern[at : at + 1] in special and special:
        raise BadPatternError(pattern)
    if at == len(pattern):
        raise BadPatternError(pattern)
    return pattern[at], at + 1


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The class of characters in brackets, as a regular expression, and where it ends."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges, count = "", 0
    while not count or pattern[at : at + 1] != "]":
        low, at = _character(pattern, at, "-]")
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _character(pattern, at + 1, "-]")
        ranges += f"{re.escape(low)}-{re.escape(high)}" if low <= high else ""
        count += 1
    if not ranges:
        return (_ANYTHING if negated else _NOTHING), at + 1
    return f"[{'^' if negated else ''}{ranges}]", at + 1
