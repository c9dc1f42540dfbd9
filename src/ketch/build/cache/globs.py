"""Wildcards in paths of a graph, which are as Go's path.Match has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument
from ketch.notation import gopaths

if TYPE_CHECKING:
    import re


def compiled(pattern: str) -> re.Pattern[str]:
    """An expression that whole paths match (InvalidArgument)."""
    try:
        return gopaths.compiled(pattern)
    except gopaths.BadPatternError:
        raise wrong(pattern) from None


def wrong(pattern: str) -> InvalidArgument:
    """The error of a pattern that cannot be read."""
    return InvalidArgument(
        f"syntax error in pattern {pattern!r}", hint="write a backslash before brackets that stand for themselves"
    )
