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


def human_duration(seconds: float) -> str:
    """How long ago, in the words of ``docker ps``: "Less than a second", "About a minute", "3 hours" …"""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"
