"""Addresses as they are told to others."""

from __future__ import annotations

import re

_AUTHORITY_ENDS = re.compile(r"[/?#]")


def without_password(address: str) -> str:
    """An address whose user and password are not shown; any other text as it is."""
    scheme, separator, rest = address.partition("://")
    end = _AUTHORITY_ENDS.search(rest)
    length = end.start() if end is not None else len(rest)
    user, at, host = rest[:length].rpartition("@")
    if not separator or not at or ":" not in user:
        return address
    return f"{scheme}{separator}xxxxx:xxxxx@{host}{rest[length:]}"
