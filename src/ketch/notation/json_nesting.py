"""The nesting of JSON: how deep its arrays and objects lie in each other.

Python's decoders give up at a depth that differs with its version and with the stack they are called from.  What comes
from clients is held to one limit instead, which no body that means something reaches.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 500  # levels
_TEXT_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


def is_too_deep(text: str) -> bool:
    """Whether there are more than `LIMIT` levels; the text need not be valid JSON."""
    if text.count("[") + text.count("{") <= LIMIT:
        return False
    depth = 0
    for bracket in brackets(text):
        depth += 1 if bracket in "[{" else -1
        if depth > LIMIT:
            return True
    return False


def brackets(text: str) -> Iterator[str]:
    """The brackets of arrays and objects in their order, without those in texts."""
    return (found for found in _TEXT_OR_BRACKET.findall(text) if found[0] != '"')
