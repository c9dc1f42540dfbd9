"""The part of a client's directory that a source takes: patterns that take in, and patterns that leave out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ketch.dockerignore import IgnoreRules
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence


class PathSelection:
    """Which paths are wanted, asked from directory to directory (`ketch.storage.contexts.scan.Choose`).

    A directory that is not wanted itself is there nevertheless when something in it is.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        """InvalidArgument for a pattern that cannot be read; without patterns to ``include`` everything is."""
        self._include = _rules(include, "includepatterns")
        self._exclude = _rules(exclude, "excludepatterns")

    def __bool__(self) -> bool:
        return self._include is not None or self._exclude is not None

    def __call__(self, state: Any, path: str, is_directory: bool) -> tuple[bool, Any]:
        """Whether a path is wanted, and the state for what is in it; None: nothing in it can be."""
        included, excluded = state or ((), ())
        wanted = True
        if self._include is not None:
            wanted, included = self._include.below(included, path)
            if not wanted and is_directory and not self._include.may_match_below(path):
                return False, None
        if self._exclude is not None:
            left_out, excluded = self._exclude.below(excluded, path)
            if left_out and is_directory and not self._exclude.may_keep_below(path):
                return False, None
            wanted = wanted and not left_out
        return wanted, (included, excluded)


def _rules(patterns: Sequence[str], what: str) -> IgnoreRules | None:
    if not patterns:
        return None
    try:
        return IgnoreRules(patterns)
    except InvalidArgument as e:
        raise InvalidArgument(f"invalid {what}: [{' '.join(patterns)}]: {e.message}", hint=e.hint) from e
