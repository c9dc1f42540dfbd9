"""Addresses as they are told to others."""

from __future__ import annotations


def without_password(address: str) -> str:
    """An address whose user and password are not shown; any other text as it is."""
    scheme, separator, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if not separator or not at or ":" not in user:
        return address
    return f"{scheme}{separator}xxxxx:xxxxx@{host}{slash}{path}"
