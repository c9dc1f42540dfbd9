"""Encoding of JSON answers.

Names of files, and targets of links, that a container chose need not be UTF-8; JSON's strings have to be.  What is not
becomes U+FFFD, as with Docker.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

_UNREADABLE = re.compile("[\ud800-\udfff]")  # bytes of names that are no UTF-8, as Python keeps them
_encode = msgspec.json.Encoder().encode


def encode(value: Any) -> bytes:
    """``value`` as JSON."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_readable(msgspec.to_builtins(value)))


def line(value: Any) -> bytes:
    """``value`` as JSON with a newline behind it, as Go's encoder writes it: shells read lines."""
    return encode(value) + b"\n"


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return _UNREADABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_readable(key): _readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(item) for item in value]
    return value
