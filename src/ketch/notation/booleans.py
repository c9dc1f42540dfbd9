"""Truth values as Go reads and writes them (strconv.ParseBool, strconv.FormatBool): in flags, options and filters."""

from __future__ import annotations

_VALUES = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


def parse(text: str) -> bool | None:
    """The truth value that ``text`` is; None for anything else, such as ``yes``, ``tRUE`` or an empty text."""
    return _VALUES.get(text)


class NotABooleanError(ValueError):
    """A text that is no truth value; its text is Go's."""


def strict(text: str) -> bool:
    """The truth value that ``text`` is (NotABooleanError)."""
    found = parse(text)
    if found is None:
        raise NotABooleanError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return found


def write(value: bool | None) -> str:
    """``true`` or ``false``; what an older daemon does not say is false."""
    return "true" if value else "false"
