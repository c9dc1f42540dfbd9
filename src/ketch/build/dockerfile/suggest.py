"""The word that was probably meant: BuildKit's "did you mean"."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_FARTHEST = 2


def hint(word: str, options: Iterable[str], *, any_case: bool = False) -> str:
    """`` (did you mean X?)`` for a message's end, or nothing."""
    found = nearest(word, options, any_case=any_case)
    return f" (did you mean {found}?)" if found else ""


def nearest(word: str, options: Iterable[str], *, any_case: bool = False) -> str:
    """The option that is at most two letters away; nothing where none is, or the word itself is one."""
    best, least = "", _FARTHEST + 1
    wanted = word.lower() if any_case else word
    for option in sorted(options):
        known = option.lower() if any_case else option
        if known == wanted:
            return ""
        distance = _distance(wanted, known, least)
        if distance < least:
            best, least = known, distance
    return best.upper() if any_case and word == word.upper() else best


def _distance(one: str, other: str, limit: int) -> int:
    """The edit distance (Levenshtein) of two words; ``limit`` stands for all that are not less."""
    if abs(len(one) - len(other)) >= limit:
        return limit
    row = list(range(len(other) + 1))
    for i, char in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, there in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (char != there))
    return row[-1]
