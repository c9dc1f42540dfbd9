"""Whole numbers in untrusted text: requests, registries' headers and manifests, options, command lines.

Python reads the digits of every script, and refuses more than some thousand of them with an error of its own
(`int`, "integer string conversion length limitation").  What others wrote is one of a few ASCII digits or no number.
"""

from __future__ import annotations

LARGEST = (1 << 63) - 1  # what Go's int64 holds, with which Docker's clients read


def whole(text: str, largest: int = LARGEST) -> int | None:
    """The number that ``text`` is: decimal digits alone, and at most ``largest``; None for anything else."""
    if not (text.isascii() and text.isdecimal()):
        return None
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(largest)):
        return None
    number = int(digits)
    return number if number <= largest else None
