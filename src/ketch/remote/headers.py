"""Headers of registries: ``WWW-Authenticate``, ``Link``, ``Range``, ``Retry-After``."""

from __future__ import annotations

import re
from typing import NamedTuple

# Possessive (``++``): a registry chooses these texts, and must not have them tried in all ways.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_PARAMETER = re.compile(rf'({_TOKEN})\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|({_TOKEN}[^\s,]*+))\s*+(?:,\s*+|\Z)')
_SCHEME = re.compile(rf"\s*({_TOKEN})(?:\s+|\Z)")
_LINK = re.compile(r'<([^<>]*)>\s*+((?:;[^,"]*+(?:"[^"]*+")?+)*+)')
_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/(?:\d{1,18}|\*))?\Z", re.ASCII)


class Challenge(NamedTuple):
    """One scheme of ``WWW-Authenticate``, in lower case, with its parameters."""

    scheme: str
    parameters: dict[str, str]


def challenges(text: str) -> list[Challenge]:
    """All schemes of a ``WWW-Authenticate`` header (RFC 9110 §11.6.1); what cannot be read ends the list."""
    found: list[Challenge] = []
    at = 0
    while match := _SCHEME.match(text, at):
        at = match.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(text, at):
            value = parameter[2] if parameter[2] is not None else parameter[3]
            parameters[parameter[1].lower()] = re.sub(r"\\(.)", r"\1", value)
            at = parameter.end()
        found.append(Challenge(match[1].lower(), parameters))
        if text[at : at + 1] == ",":
            at += 1
    return found


def next_link(text: str) -> str | None:
    """The target of ``rel="next"`` in a ``Link`` header (RFC 8288)."""
    for match in _LINK.finditer(text):
        if re.search(r';\s*rel\s*=\s*"?next\b', match[2]):
            return match[1]
    return None


def range_of(text: str) -> tuple[int, int] | None:
    """First and last byte of ``Content-Range`` or of the ``Range`` that a registry answers; None for neither."""
    match = _RANGE.match(text.strip())
    return (int(match[1]), int(match[2])) if match else None


def retry_after(text: str | None, longest_s: float = 30.0) -> float | None:
    """Seconds to wait, at most ``longest_s``; None when the header is a date or missing."""
    return min(float(text), longest_s) if text and text.isdecimal() and len(text) < 10 else None
