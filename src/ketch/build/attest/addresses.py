"""Addresses as they are told to others."""

from __future__ import annotations

import re

_AUTHORITY_ENDS = re.compile(r"[/?#]")


def without_password(address: str) -> str:
    """An address whose user and password, or token, are not shown; any other text as it is."""
    scheme, separator, rest = address.partition("://")
    end = _AUTHORITY_ENDS.search(rest)
    length = end.start() if end is not None else len(rest)
    user, at, host = rest[:length].rpartition("@")
    if not separator or not at:
        return address
    if ":" in user:
        return f"{scheme}{separator}xxxxx:xxxxx@{host}{rest[length:]}"
    # Of the web's addresses a user without a password is mostly a token; of ssh's it is a name.
    return f"{scheme}{separator}xxxxx@{host}{rest[length:]}" if scheme.lower() in ("http", "https") else address
