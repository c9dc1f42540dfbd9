"""Sizes and times as users write them and as Docker shows them."""

from __future__ import annotations

import time

from ketch.errors import InvalidArgument

_FACTORS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DURATIONS = {"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def size(text: str, flag: str = "size") -> int:
    """``512m``, ``1.5g``, ``64MiB`` → bytes (InvalidArgument otherwise)."""
    word = text.strip().lower().removesuffix("ib").removesuffix("b") if text.strip().lower() != "b" else ""
    digits = word.rstrip("kmgtp")
    try:
        number = float(digits)
        if number < 0 or digits.startswith("+"):
            raise ValueError
        return int(number * _FACTORS[word[len(digits) :].strip()])
    except (ValueError, KeyError, OverflowError):
        raise InvalidArgument(f"invalid {flag} `{text}`: not a size", hint="use e.g. 512m or 2g") from None


def duration(text: str, flag: str = "duration") -> int:
    """``1m30s``, ``500ms`` → nanoseconds (InvalidArgument otherwise)."""
    total, number, rest = 0.0, "", text
    while rest:
        if rest[0] in "0123456789.":
            number, rest = number + rest[0], rest[1:]
            continue
        unit = next((u for u in ("ns", "us", "µs", "ms", "s", "m", "h") if rest.startswith(u)), None)
        if unit is None or not 0 < len(number) < 40 or number.count(".") > 1 or number == ".":
            break
        total += float(number) * _DURATIONS[unit]
        number, rest = "", rest[len(unit) :]
    if rest or number or not text:
        raise InvalidArgument(f"invalid {flag} `{text}`: not a duration", hint="use e.g. 30s or 1m30s")
    return int(total)


def human_size(value: float, digits: int = 3) -> str:
    """Significant digits in powers of 1000: ``4.43MB`` (three as in lists, four as in sums)."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 1000 or unit == "PB":
            return _significant(value, digits) + unit
        value /= 1000
    raise AssertionError


def human_bytes(value: float) -> str:
    """Four significant digits in powers of 1024: ``1.944GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024 or unit == "PiB":
            return _significant(value, 4) + unit
        value /= 1024
    raise AssertionError


def _significant(value: float, digits: int) -> str:
    """Go's ``%.Ng``: so many significant digits, no trailing zeros."""
    text = f"{value:.{digits}g}"
    return f"{float(text):g}" if "e" in text else text


def moment(text: str) -> str:
    """``--since`` and ``--until``: a duration before now, seconds since 1970, or RFC 3339 → what the API takes."""
    if not text:
        return ""
    try:
        return f"{(time.time_ns() - duration(text)) / 1e9:.9f}"
    except InvalidArgument:
        return text
