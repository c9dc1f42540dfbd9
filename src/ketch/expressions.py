"""Clients' regular expressions, as Go reads them: each is matched in a time that grows with the text alone (RE2).

The interpreter's `re` tries one alternative after the other, for ``(a+)+$`` and a name that almost fits longer than
anybody lives.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_LARGEST = 1 << 20  # bytes that an expression and its matches may take
_KEPT = 64
# What RE2 says → what Go says (regexp/syntax, type ErrorCode).
_REASONS = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "unexpected )": "unexpected )",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture",
    "invalid escape sequence": "invalid escape sequence",
    "invalid character class": "invalid character class",
    "invalid character class range": "invalid character class range",
    "trailing \\": "trailing backslash at end of expression",
}


@functools.lru_cache(_KEPT)
def compiled(text: str) -> Any:
    """An expression with the methods of `re.Pattern` (ValueError, with Go's words: it is none)."""
    import re2  # not loaded before a client has one

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _LARGEST
    try:
        return re2.compile(text, options)
    except re2.error as e:
        said = e.args[0].decode(errors="replace") if e.args and isinstance(e.args[0], bytes) else str(e)
        reason, _, part = said.partition(": ")
        where = f": `{part}`" if part else ""
        raise ValueError(f"error parsing regexp: {_REASONS.get(reason, reason)}{where}") from e


def is_valid(text: str) -> bool:
    """Whether a text is a regular expression."""
    try:
        compiled(text)
    except ValueError:
        return False
    return True


class Expressions:
    """A set of expressions, any of which may match."""

    def __init__(self, values: Iterable[str]) -> None:
        """ValueError: one is none."""
        self._compiled = [compiled(value) for value in values]

    def fit(self, *texts: str) -> bool:
        """Whether one of them matches somewhere in one of the texts."""
        return any(expression.search(text) for expression in self._compiled for text in texts)
