"""Sizes, durations and points in time as values of flags; an error names the flag."""

from __future__ import annotations

from ketch.cli.errors import UsageError
from ketch.errors import InvalidArgument
from ketch.notation import durations, sizes


def size(text: str, flag: str = "size") -> int:
    """``512m``, ``1.5g``, ``64MiB`` → bytes (UsageError otherwise)."""
    found = sizes.parse(text)
    if found is None:
        raise UsageError(f"invalid {flag} `{text}`: not a size", hint="use e.g. 512m or 2g")
    return found


def duration(text: str, flag: str = "duration") -> int:
    """``1m30s``, ``500ms`` → nanoseconds (UsageError otherwise, and for negative ones)."""
    found = durations.parse(text)
    if found is None or found < 0:
        raise UsageError(f"invalid {flag} `{text}`: not a duration", hint="use e.g. 30s or 1m30s")
    return found


def moment(text: str) -> str:
    """``--since`` or ``--until`` → the API's value (InvalidArgument).

    It is a duration before now, seconds since 1970, or RFC 3339.
    """
    if not text:
        return ""
    import time  # here: few commands have a use for it, and each start would pay for it

    from ketch.notation import moments

    found = moments.parse(text, time.time_ns())
    if found is None:
        raise InvalidArgument(f"`{text}` is no point in time", hint="use e.g. 10m, 2026-01-31T12:00:00 or 1700000000")
    return f"{found // 10**9}.{found % 10**9:09}"
