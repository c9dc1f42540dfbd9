"""Times as Docker writes them."""

from __future__ import annotations

import time

NEVER = "0001-01-01T00:00:00Z"


def rfc3339(ns: int) -> str:
    """Nanoseconds since the epoch → ``2024-01-02T03:04:05.123456789Z``; trailing zeros go, 0 is Go's zero time."""
    if ns <= 0:
        return NEVER
    seconds, rest = divmod(ns, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f"{rest:09}".rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"
