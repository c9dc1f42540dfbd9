"""``.dockerignore``: which files of a context are left out, by the rules of Docker's pattern matcher.

A pattern matches a path or any directory above it; the last pattern that matches decides, and one with ``!`` takes a
path back in.  ``*`` and ``?`` stop at slashes, ``**`` does not; ``[a-z]`` and ``\\`` are as in Go's `filepath.Match`.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import InvalidArgument
from ketch.notation import gopaths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEFAULT = ".dockerignore"
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""What Go takes for white space: Python's own methods would add the separators of ASCII."""


def file_names(dockerfile: str) -> tuple[str, str]:
    """The files that may hold the rules of a Dockerfile, of which the first that exists counts."""
    return f"{dockerfile}{DEFAULT}", DEFAULT


class _Pattern(NamedTuple):
    """One pattern; ``exception``: it begins with ``!``, which ``text`` does not."""

    text: str
    exception: bool
    matches: Callable[[str], bool]


class IgnoreRules:
    """The patterns of one file; paths are relative, with slashes and without a dot."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """InvalidArgument for a pattern that cannot be read."""
        self._patterns = [_compiled(pattern) for pattern in patterns]
        self.has_exceptions = any(one.exception for one in self._patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def ignored(self, path: str) -> bool:
        """Whether a path is left out, for itself or for a directory above it.

        Where exceptions match a directory that nothing left out, a walk (`below`) may decide otherwise, as Docker's.
        """
        return self.below((), path)[0]

    def below(self, parent: Sequence[bool], path: str) -> tuple[bool, Sequence[bool]]:
        """Whether a path is left out, and which patterns match it, which is `parent` for what is in it.

        An empty ``parent`` stands for what nothing is known of.
        """
        ignored = False
        found = [False] * len(self._patterns)
        for number, one in enumerate(self._patterns):
            matches = bool(parent) and parent[number]
            if not matches:
                if one.exception != ignored:
                    continue  # it would not change anything
                matches = one.matches(path) or (not parent and any(map(one.matches, _above(path))))
            found[number] = matches
            if matches:
                ignored = not one.exception
        return ignored, found

    def may_keep_below(self, directory: str) -> bool:
        """Whether a pattern can take back in what is below a directory that is left out."""
        inside = f"{directory}/"
        return any(one.exception and _may_reach(one.text, inside) for one in self._patterns)

    def may_match_below(self, directory: str) -> bool:
        """Whether a pattern that is no exception can match something below a directory that none matches."""
        inside = f"{directory}/"
        return any(not one.exception and _may_reach(one.text, inside) for one in self._patterns)


def read(text: str) -> IgnoreRules:
    """The rules of a file's text: a pattern a line, lines that begin with ``#`` are comments (InvalidArgument)."""
    return IgnoreRules(patterns(text))


def patterns(text: str) -> list[str]:
    """The patterns of a file's text, without what is the same as nothing."""
    found: list[str] = []
    for line in text.removeprefix("\ufeff").split("\n"):
        if line.startswith("#") or not line.strip(SPACES):
            continue
        pattern = line.strip(SPACES)
        exception = pattern.startswith("!")
        if exception:
            pattern = pattern[1:].strip(SPACES)
        if pattern:
            pattern = _clean(pattern)
            pattern = pattern[1:] if len(pattern) > 1 and pattern.startswith("/") else pattern
        found.append("!" + pattern if exception else pattern)
    return found


def _clean(path: str) -> str:
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def _above(path: str) -> list[str]:
    """The directories above a path."""
    return [path[:at] for at, char in enumerate(path) if char == "/"]


def _may_reach(pattern: str, directory: str) -> bool:
    """Whether something below a directory can match: what has a wildcard before its end may be anywhere."""
    literal = re.split(r"[*?\[\\]", pattern, maxsplit=1)[0]
    whole = pattern if literal == pattern else literal
    return f"{whole}/".startswith(directory) or (literal != pattern and directory.startswith(literal))


def _compiled(written: str) -> _Pattern:
    pattern = _clean(written.strip(SPACES))
    exception = pattern.startswith("!")
    pattern = pattern[1:] if exception else pattern
    if exception and not pattern:
        raise InvalidArgument('illegal exclusion pattern: "!"', hint="write a path behind the exclamation mark")
    return _Pattern(pattern, exception, _matcher(pattern))


def _matcher(pattern: str) -> Callable[[str], bool]:
    """The cheapest test that is the same as the pattern."""
    try:
        general = gopaths.docker_matcher(pattern)
    except gopaths.BadPatternError:
        hint = "write a backslash before brackets that stand for themselves"
        raise InvalidArgument(f"syntax error in pattern {pattern!r}", hint=hint) from None
    beginning, middle, end = pattern[:2], pattern[2:], pattern[-2:]
    if not re.search(r"[*?\[\]\\]", pattern):
        return pattern.__eq__
    if beginning == "**" and not re.search(r"[*?\[\]\\]", middle):
        return lambda path: path.endswith(middle) or (middle[:1] == "/" and path == middle[1:])
    if end == "**" and not re.search(r"[*?\[\]\\]", pattern[:-2]):
        return lambda path: path.startswith(pattern[:-2])
    return general
