"""Modes of copied files: a number, or symbolic as chmod's (``u+x,go=rX``)."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)", re.ASCII)
_STEP = re.compile(r"([-+=])([ugo]|[rwxXst]*)", re.ASCII)
_WHO = {
    "u": stat.S_ISUID | stat.S_IRWXU,
    "g": stat.S_ISGID | stat.S_IRWXG,
    "o": stat.S_IRWXO,
    "a": stat.S_ISUID | stat.S_ISGID | 0o777,
}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_SHIFTS = {"u": 6, "g": 3, "o": 0}


def number(mode: int) -> Callable[[int], int]:
    """The change to one mode, whatever a file has."""
    return lambda _: mode & 0o7777


def symbolic(text: str) -> Callable[[int], int]:
    """The change that chmod(1) makes of such a text: from a whole mode to permissions (InvalidArgument).

    As BSD's chmod: who names nobody, means all, whatever the umask; ``=`` takes set-id bits of directories, too.
    """
    steps: list[tuple[str, str, str]] = []
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause)
        if not found:
            raise InvalidArgument(f"invalid mode {text!r}: invalid syntax")
        steps += [(found[1], *one) for one in _STEP.findall(found[2])]

    def change(mode: int) -> int:
        result = mode
        for who, sign, permissions in steps:
            result = _applied(result, mode, who, sign, permissions)
        return stat.S_IMODE(result)

    return change


def _applied(mode: int, before: int, who: str, sign: str, permissions: str) -> int:
    """One step of a symbolic mode."""
    mask = 0
    for one in who or "a":
        mask |= _WHO[one]
    others_alone = set(who) == {"o"}
    bits = 0
    if permissions and permissions in _SHIFTS:
        value = mode >> _SHIFTS[permissions] & 0o7
        bits = value << 6 | value << 3 | value
    for one in permissions:
        bits |= _BITS.get(one, 0)
        if one == "X" and (stat.S_ISDIR(before) or before & 0o111):
            bits |= 0o111
        if one == "s" and not others_alone:
            bits |= stat.S_ISUID | stat.S_ISGID
    bits &= mask
    if "t" in permissions and not others_alone:
        bits |= stat.S_ISVTX
        mask |= stat.S_ISVTX
    if sign == "-":
        return mode & ~bits
    return (mode & ~mask | bits) if sign == "=" else mode | bits
