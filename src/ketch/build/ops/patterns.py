"""Include and exclude patterns of a copy: which entries below its source they choose."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ketch.dockerignore import IgnoreRules

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Matched(NamedTuple):
    """Which patterns match a directory."""

    include: Sequence[bool] = ()
    exclude: Sequence[bool] = ()


class CopyPatterns:
    """The patterns of one copy (InvalidArgument: one cannot be read); paths are relative to its source."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = IgnoreRules(include) if include else None
        self._exclude = IgnoreRules(exclude) if exclude else None
        self._literal = [_literal(pattern) for pattern in include]

    def wanted(self, path: str, above: _Matched | None) -> tuple[bool, bool, _Matched]:
        """Whether a path is copied, whether anything below it may be, and what matches it, for what is in it."""
        parent = above or _Matched()
        included, excluded = True, False
        matched = _Matched()
        if self._include is not None:
            included, found = self._include.below(parent.include, path)
            matched = _Matched(found)
        if self._exclude is not None:
            excluded, found = self._exclude.below(parent.exclude, path)
            matched = matched._replace(exclude=found)
        if excluded and self._exclude is not None and not self._exclude.has_exceptions:
            return False, False, matched
        return included and not excluded, included or self._may_reach(path), matched

    def _may_reach(self, directory: str) -> bool:
        """Whether an include pattern can match something below a directory that none matches."""
        inside = f"{directory}/"
        return any(
            text.startswith(inside) or (wildcards and inside.startswith(text)) for text, wildcards in self._literal
        )


def _literal(pattern: str) -> tuple[str, bool]:
    """A pattern as far as it is literal, and whether it goes on with wildcards."""
    text = pattern.strip().removeprefix("!").strip("/")
    found = re.split(r"[*?\[\\]", text, maxsplit=1)
    return found[0], len(found) > 1
