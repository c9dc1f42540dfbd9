"""Query strings: booleans, numbers and times in the forms that Docker accepts."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from ketch.errors import InvalidArgument, UnclassifiedArgument
from ketch.notation import booleans, digits, documents, integers, moments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.web import BaseRequest

_FALSE = frozenset(("", "0", "no", "false", "none"))
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)

_Filters = dict[str, list[str] | dict[str, bool] | None] | None


def flag(query: Mapping[str, str], name: str, default: bool = False) -> bool:
    """``1``, ``true``, … → True; ``0``, ``no``, ``false``, ``none`` and the empty string → False."""
    value = query.get(name)
    return default if value is None else value.strip().lower() not in _FALSE


def strict_flag(query: Mapping[str, str], name: str) -> bool:
    """A truth value as Go writes them (InvalidArgument otherwise); False when absent or empty."""
    text = query.get(name)
    try:
        return booleans.strict(text) if text else False
    except booleans.NotABooleanError as e:
        raise InvalidArgument(f"invalid value for {name}: {text}: {e}") from e


def number(query: Mapping[str, str], name: str, default: int | None = None) -> int | None:
    """A decimal integer (UnclassifiedArgument otherwise)."""
    text = query.get(name)
    if not text:
        return default
    try:
        return integers.signed(text)
    except integers.NotAnIntegerError as e:
        raise UnclassifiedArgument(f'strconv.Atoi: parsing "{text}": {e}', hint=f"it is the parameter `{name}`") from e


def size(query: Mapping[str, str]) -> tuple[int, int]:
    """Rows and columns of a terminal (InvalidArgument); as of any that it has, the kernel takes the lowest 16 bits."""
    found = []
    for name, what in (("h", "height"), ("w", "width")):
        text = query.get(name, "")
        try:
            number = integers.unsigned(text.removeprefix("-"), 32)
            if text.startswith("-"):
                raise integers.NotAnIntegerError("value out of range")
        except integers.NotAnIntegerError as e:
            raise InvalidArgument(f'invalid resize {what} "{text}": {e}') from e
        found.append(number & 0xFFFF)
    return found[0], found[1]


def check(raw: str) -> None:
    """InvalidArgument for a query string that Go's net/url does not take."""
    for part in raw.split("&"):
        if ";" in part:
            raise InvalidArgument("invalid semicolon separator in query")
        if wrong := _BAD_ESCAPE.search(part):
            raise InvalidArgument(f'invalid URL escape "{wrong[0]}"')


def path(request: BaseRequest, name: str = "path") -> str:
    """A path in a container, whose bytes need not be UTF-8: as `os.fsdecode` has them; empty when absent."""
    given = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True, errors="surrogateescape")
    return next((value for key, value in given if key == name), "")


def timestamp(query: Mapping[str, str], name: str) -> int:
    """``seconds[.nanoseconds]``, RFC 3339, or a duration before now → ns since 1970; 0 when absent."""
    text = query.get(name)
    if not text:
        return 0
    found = moments.parse(text, time.time_ns())
    if found is None:
        raise UnclassifiedArgument(_no_timestamp(text), hint=f"use seconds since 1970 or RFC 3339 for `{name}`")
    return found


def _no_timestamp(text: str) -> str:
    """Docker's words: it reads the seconds first, and what follows the point then."""
    seconds, point, fraction = text.partition(".")
    for part in (seconds, *([fraction] if point else [])):
        try:
            integers.signed(part)
        except integers.NotAnIntegerError as e:
            return f'strconv.ParseInt: parsing "{part}": {e}'
    return f"invalid time: {text}"


def tail(query: Mapping[str, str]) -> int | None:
    """The ``tail`` of logs: a count, or None for ``all``."""
    text = query.get("tail", "all")
    if text in ("", "all"):
        return None
    # Docker takes what is not a number as "all", too; a negative count means the same.
    return digits.whole(text)


def filters(query: Mapping[str, str]) -> dict[str, list[str]]:
    """``{"status": ["running"]}`` or the older ``{"status": {"running": true}}`` → lists."""
    text = query.get("filters")
    if not text or text.strip() == "null":
        return {}
    if documents.is_too_deep(text):
        raise InvalidArgument("invalid filter: the filters are nested too deeply")
    try:
        return {
            name: list(values or ())  # of an object the names, whatever they are set to: as Docker
            for name, values in (msgspec.json.decode(text, type=_Filters) or {}).items()
        }
    except (msgspec.DecodeError, UnicodeEncodeError) as e:
        raise InvalidArgument(f"invalid filter: {e}", hint='send JSON such as {"status": ["running"]}') from e


def check_texts(value: Any, where: str = "") -> None:
    """InvalidArgument for a NUL byte in a decoded body: no path, argument or name can have one.  Labels may."""
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidArgument(f"invalid JSON: {where or 'the body'} has a NUL byte")
    elif isinstance(value, list):
        for item in value:
            check_texts(item, where)
    elif isinstance(value, dict):
        for name, item in value.items():
            check_texts(name, where or "a name")
            if name != "Labels":
                check_texts(item, f"{where}.{name}" if where else name)
