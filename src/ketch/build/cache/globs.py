"""Patterns for paths as Go's path.Match reads them: no wildcard matches a slash."""

from __future__ import annotations

import re

from ketch.errors import InvalidArgument


def compiled(pattern: str) -> re.Pattern[str]:
    """An expression that whole paths match; ``*``, ``?``, ``[a-z]``, ``[^a-z]``, ``\\`` (InvalidArgument)."""
    found, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            found += "[^/]*"
        elif char == "?":
            found += "[^/]"
        elif char == "[":
            piece, at = _class(pattern, at)
            found += piece
        else:
            if char == "\\":
                char, at = _escaped(pattern, at - 1)
            found += re.escape(char)
    return re.compile(f"(?s:{found})\\Z")


def has_wildcards(path: str) -> bool:
    """Whether a path has a wildcard that no backslash makes plain."""
    return re.search(r"[*?[]", re.sub(r"\\.", "", path, flags=re.DOTALL)) is not None


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The expression for characters in brackets, from behind ``[`` on, and where they end."""
    negated = pattern.startswith("^", at)
    start = at = at + negated
    ranges = ""
    while at == start or not pattern.startswith("]", at):
        low, at = _bound(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _bound(pattern, at + 1)
        if low <= high:
            ranges += f"{re.escape(low)}-{re.escape(high)}"
    if not ranges:
        return ("." if negated else "(?!)"), at + 1
    return f"[{'^' if negated else ''}{ranges}]", at + 1


def _bound(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at : at + 1] in ("", "-", "]"):
        raise _wrong(pattern)
    char, at = _escaped(pattern, at) if pattern[at] == "\\" else (pattern[at], at + 1)
    if at == len(pattern):
        raise _wrong(pattern)
    return char, at


def _escaped(pattern: str, at: int) -> tuple[str, int]:
    if at + 1 == len(pattern):
        raise _wrong(pattern)
    return pattern[at + 1], at + 2


def _wrong(pattern: str) -> InvalidArgument:
    return InvalidArgument(
        f"syntax error in pattern {pattern!r}", hint="write a backslash before brackets that stand for themselves"
    )
