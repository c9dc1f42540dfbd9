"""Clients' regular expressions, matched against others' names; a match that takes too long is aborted.

The interpreter's `re` tries one alternative after the other, for ``(a+)+$`` and a name that almost fits longer than
anybody lives, and meanwhile nobody is served.  (Go's, and so dockerd's, has no such expressions.)  While it tries it
looks for signals, so a timer's can end it: one that counts the processor's time (setitimer(2)), in the main thread.
"""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

_CHOICES = re.compile(r"[*+?{|]")  # without these there is nothing to be tried
_LONGEST_S = 0.1  # of this process, for one name
_HINT = "it is a regular expression"


class _TooLongError(Exception):
    """The time limit of a match is over."""


def is_pattern(text: str) -> bool:
    """Whether the text is a regular expression."""
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


class Patterns:
    """A set of expressions, any of which may match."""

    def __init__(self, values: Iterable[str], what: str) -> None:
        """Compile the expressions (InvalidArgument, naming ``what``)."""
        self._what = what
        try:
            self._compiled = [re.compile(value) for value in values]
            self._plain = not any(_CHOICES.search(compiled.pattern) for compiled in self._compiled)
        except (re.error, OverflowError, RecursionError) as e:
            raise InvalidArgument(f"{what}: {e}", hint=_HINT) from e

    def fit(self, *texts: str) -> bool:
        """Whether an expression matches in a text (InvalidArgument when that takes too long)."""
        try:
            return self._found(texts) if self._plain else self._search(texts)
        except _TooLongError as e:
            raise InvalidArgument(f"{self._what}: it takes too long", hint="write it without nested repetitions") from e

    def _found(self, texts: tuple[str, ...]) -> bool:
        return any(pattern.search(text) for pattern in self._compiled for text in texts)

    def _search(self, texts: tuple[str, ...]) -> bool:
        before = signal.signal(signal.SIGVTALRM, _raise)
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST_S)
            return self._found(texts)
        finally:
            signal.signal(signal.SIGVTALRM, signal.SIG_IGN)  # whatever comes from here on is too late
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise _TooLongError
