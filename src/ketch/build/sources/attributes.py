"""Attributes of source operations, read from their texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping


def texts(attrs: Mapping[str, str], name: str) -> list[str] | None:
    """A list of texts in JSON; None where there is none (InvalidArgument)."""
    written = attrs.get(name)
    if written is None:
        return None
    try:
        return msgspec.json.decode(written, type=list[str] | None)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as e:
        raise InvalidArgument(f"invalid value for {name} {written[:200]!r}: {e}", hint="write a JSON list") from e


def layer_limit(attrs: Mapping[str, str]) -> int:
    """The number of an image's layers that are wanted, from below; 0: all (InvalidArgument)."""
    limit = number(attrs, "image.layerlimit")
    if limit < 0 or ("image.layerlimit" in attrs and not limit):
        raise InvalidArgument(f"invalid layer limit {attrs['image.layerlimit']}")
    return limit


def number(attrs: Mapping[str, str], name: str) -> int:
    """A number as Go reads one whose base is in its beginning (``0o17``, ``017``, ``0x1f``); 0 where there is none."""
    written = attrs.get(name, "")
    if not written:
        return 0
    digits = written[1:] if written[0] in "+-" else written
    octal = len(digits) > 1 and digits.isdigit() and digits[0] == "0"
    try:
        value = int(digits, 8 if octal else 0)
    except ValueError as e:
        raise InvalidArgument(f"invalid value for {name} {written[:80]!r}: it is no number") from e
    if not written.isascii() or value >= 1 << 63:
        raise InvalidArgument(f"invalid value for {name} {written[:80]!r}: it is no number of 64 bits")
    return -value if written[0] == "-" else value
