"""Patterns of a shell in the modifiers of variables (``#``, ``%``, ``/``): ``*`` is any text, ``?`` any character.

What is between the stars has a fixed length.  Where one piece is found first (or, from the end, last) the others can
only be found more easily, so that nothing is tried twice: time is that of the text times that of the pattern, also for
``${x//a*a*a*b}``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class ShellPattern:
    """A pattern; ``pieces``: what is between its stars, each character by itself, None for any."""

    def __init__(self, pieces: Sequence[Sequence[str | None]]) -> None:
        self._pieces = [_Piece(piece) for piece in pieces]

    def beginning(self, text: str, *, longest: bool) -> int | None:
        """The end of the beginning of a text that fits, the longest or the shortest; None: none does."""
        return self._end(text, 0, longest=longest)

    def ending(self, text: str, *, longest: bool) -> int | None:
        """The start of the end of a text that fits, the longest or the shortest; None: none does."""
        first, *others = self._pieces
        if not others:
            return first.at_end(text, 0)
        end = others[-1].at_end(text, 0)
        if end is None:
            return None
        if longest:
            start = first.first(text, 0, end)
            at: int | None = None if start is None else start + first.length
            for piece in others[:-1]:
                found = None if at is None else piece.first(text, at, end)
                at = None if found is None else found + piece.length
            return start if at is not None else None
        back: int | None = end
        for piece in reversed(self._pieces[:-1]):
            back = None if back is None else piece.last(text, 0, back)
        return back

    def replaced(self, text: str, replacement: str, *, every: bool) -> str:
        """The text with what fits replaced: the first, or all that do not overlap, each as long as it can be."""
        found, at = "", 0
        for start, end in self._spans(text):
            found, at = found + text[at:start] + replacement, end
            if not every:
                break
        return found + text[at:]

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """The spans that fit, from left to right; an empty one where the last has ended is none, as in Go."""
        at, last = 0, -1
        while at <= len(text):
            start = self._pieces[0].first(text, at, len(text))
            end = None if start is None else self._end(text, start, longest=True)
            if start is None or end is None:
                return
            if end > start or start != last:
                yield start, end
                last = end
            at = end if end > start else end + 1

    def _end(self, text: str, start: int, *, longest: bool) -> int | None:
        """The end of what fits from a place on."""
        first, *others = self._pieces
        if not first.fits(text, start):
            return None
        at = start + first.length
        for number, piece in enumerate(others, 1):
            last = longest and number == len(others)
            found = (piece.last if last else piece.first)(text, at, len(text))
            if found is None:
                return None
            at = found + piece.length
        return at


class _Piece:
    """A text of a fixed length, in which some characters may be any."""

    def __init__(self, characters: Sequence[str | None]) -> None:
        self.length = len(characters)
        self._text = "".join(one or "" for one in characters) if None not in characters else None
        self._expression = re.compile("".join("." if one is None else re.escape(one) for one in characters), re.DOTALL)

    def fits(self, text: str, at: int) -> bool:
        """Whether it is at a place."""
        return self._expression.match(text, at) is not None

    def first(self, text: str, start: int, end: int) -> int | None:
        """The first place of it between two, or None."""
        found = self._expression.search(text, start, end)
        return found.start() if found else None

    def last(self, text: str, start: int, end: int) -> int | None:
        """The last place of it between two, or None."""
        if self._text is not None:
            found = text.rfind(self._text, start, end)
            return found if found >= 0 else None
        places = range(end - self.length, start - 1, -1)
        return next((at for at in places if self._expression.match(text, at, end)), None)

    def at_end(self, text: str, start: int) -> int | None:
        """The place of it at the end of a text, or None."""
        at = len(text) - self.length
        return at if at >= start and self.fits(text, at) else None
