"""Whole numbers as Go reads them (strconv.Atoi, ParseInt, ParseUint in base 10), with its words for what is none."""

from __future__ import annotations

_SIGNED = r"[+-]?[0-9]+"
_UNSIGNED = r"[0-9]+"
_LONGEST = 20  # digits of what 64 bits hold, at most


class NotAnIntegerError(ValueError):
    """A text that is no number, or a number too large; its text is Go's: ``invalid syntax``, ``value out of range``."""


def signed(text: str, bits: int = 64) -> int:
    """The number that ``text`` is (NotAnIntegerError)."""
    return _number(text, _SIGNED, -(1 << bits - 1), 1 << bits - 1)


def unsigned(text: str, bits: int = 64) -> int:
    """The same for a number without a sign (NotAnIntegerError)."""
    return _number(text, _UNSIGNED, 0, 1 << bits)


def _number(text: str, pattern: str, low: int, high: int) -> int:
    import re  # here: few commands have a use for it, and each start would pay for it

    if not re.fullmatch(pattern, text):
        raise NotAnIntegerError("invalid syntax")
    digits = text.lstrip("+-").lstrip("0") or "0"
    number = -1 if len(digits) > _LONGEST else int(digits)
    if text.startswith("-"):
        number = -number
    if len(digits) > _LONGEST or not low <= number < high:
        raise NotAnIntegerError("value out of range")
    return number
