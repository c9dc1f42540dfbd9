"""Values as Go prints them, which the history of an image has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_ESCAPES = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 92: "\\\\"}


def quoted(text: str, mark: str = '"') -> str:
    """A text in quotes (``%q``)."""
    return mark + "".join(_escaped(char, mark) for char in text) + mark


def quoted_list(texts: Iterable[str]) -> str:
    """``["a" "b"]``"""
    return f"[{' '.join(quoted(text) for text in texts)}]"


def listed(texts: Iterable[str]) -> str:
    """``[a b]``"""
    return f"[{' '.join(texts)}]"


def quoted_rune(number: int) -> str:
    """A number as the character of that code (``%q``)."""
    return quoted(chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd", "'")


def _escaped(char: str, mark: str) -> str:
    code = ord(char)
    if char == mark:
        return f"\\{char}"
    if found := _ESCAPES.get(code):
        return found
    if char.isprintable():
        return char
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
