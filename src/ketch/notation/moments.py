"""Parsing of points in time (ns since 1970): RFC 3339, and the values of ``since`` and ``until``."""

from __future__ import annotations

import re
import time

from ketch.notation import durations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Compiled when they are used, which few commands do.
_PATTERN = r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,40}))?)?)?)?(?:(Z)|([+-])(\d\d):(\d\d))?"
_SECONDS = r"(-?)(\d{1,18})(?:\.(\d{1,9}))?"
_LAYOUT: tuple[tuple[Any, ...], ...] = (  # Go's names of the parts, what each is, names and bounds of its numbers
    ("2006", r"\d{4}"),
    ("-", "-"),
    ("01", r"(\d\d)", ("month", 1, 12)),
    ("-", "-"),
    ("02", r"\d\d"),
    ("T", "T"),
    ("15", r"(\d\d?)", ("hour", 0, 23)),
    (":", ":"),
    ("04", r"(\d\d)", ("minute", 0, 59)),
    (":", ":"),
    ("05", r"(\d\d)(?:[.,]\d+)?", ("second", 0, 59)),
    ("Z07:00", r"Z|[+-](\d\d):(\d\d)", ("time zone offset hour", 0, 24), ("time zone offset minute", 0, 60)),
)
_DAYS_TO_1970 = 719_468  # from the 1st of March of the year 0


def rfc3339(text: str) -> int | None:
    """``2024-01-02T03:04:05.123456789Z``, ``…+01:00``; None for what is no time, or none that a calendar has.

    Figures beyond nanoseconds are cut off.  As in Go, and unlike in RFC 3339, no minute has 61 seconds.
    """
    match = re.fullmatch(_PATTERN, text, re.ASCII)
    if match is None or match[6] is None or not (match[8] or match[9]):
        return None
    return _moment(match)


def complaint(text: str) -> str:
    """The words of Go's encoding/json for a text that is no time of RFC 3339; empty when it is one."""
    shown, rest = _quoted(text), text
    for part, pattern, *limits in _LAYOUT:
        match = re.match(pattern, rest, re.ASCII)
        if match is None:
            return f'parsing time {shown} as "2006-01-02T15:04:05Z07:00": cannot parse {_quoted(rest)} as "{part}"'
        for number, (name, low, high) in zip(match.groups(), limits, strict=False):
            if number is not None and not low <= int(number) <= high:
                return f"parsing time {shown}: {name} out of range"
        rest = rest[match.end() :]
    if rest:
        return f"parsing time {shown}: extra text: {_quoted(rest)}"
    year, month, day = (int(number) for number in text[:10].split("-"))
    return "" if 1 <= day <= _days_in(year, month) else f"parsing time {shown}: day out of range"


def _quoted(text: str) -> str:
    def escaped(byte: int) -> str:
        character = chr(byte)
        if character in '"\\':
            return f"\\{character}"
        return character if 32 <= byte < 128 else f"\\x{byte:02x}"

    return '"' + "".join(map(escaped, text.encode(errors="replace"))) + '"'


def parse(text: str, now_ns: int) -> int | None:
    """A value of Docker's ``--since`` or ``--until``: ``10m`` (ago), ``1700000000.5``, or a time of RFC 3339.

    Of the last, hours and what follows may be left out, and so may the zone: then it is this process's own.
    None for anything else.
    """
    if match := re.fullmatch(_SECONDS, text, re.ASCII):
        ns = int(match[2]) * 10**9 + int((match[3] or "").ljust(9, "0"))
        return -ns if match[1] else ns
    ago = durations.parse(text)
    if ago is not None:
        return now_ns - ago
    match = re.fullmatch(_PATTERN, text, re.ASCII)
    return _moment(match) if match else None


def _moment(match: re.Match[str]) -> int | None:
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    if not 1 <= month <= 12 or not 1 <= day <= _days_in(year, month) or hour > 23 or minute > 59 or second > 59:
        return None
    zone_hours, zone_minutes = int(match[10] or 0), int(match[11] or 0)
    if zone_hours > 23 or zone_minutes > 59:
        return None
    if match[8] or match[9]:
        ahead = (zone_hours * 60 + zone_minutes) * (-60 if match[9] == "-" else 60)
        seconds = _days(year, month, day) * 86_400 + (hour * 60 + minute) * 60 + second - ahead
    else:
        try:
            seconds = int(time.mktime((year, month, day, hour, minute, second, 0, 0, -1)))
        except OverflowError:  # a year of which the C library knows nothing
            return None
    return seconds * 10**9 + int((match[7] or "")[:9].ljust(9, "0"))


def _days_in(year: int, month: int) -> int:
    return _days(year + month // 12, month % 12 + 1, 1) - _days(year, month, 1)


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar.

    Years begin in March here, so that the day that not every year has is the last one.
    """
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)
    before = year * 365 + year // 4 - year // 100 + year // 400
    return before + (153 * month + 2) // 5 + day - 1 - _DAYS_TO_1970
