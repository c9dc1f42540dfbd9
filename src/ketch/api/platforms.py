"""Platforms in query strings, which are JSON in the requests since version 1.48, and plain text in the older ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.api import gojson
from ketch.errors import InvalidArgument
from ketch.oci import platform as oci_platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from multidict import MultiMapping


class SentPlatform(msgspec.Struct):
    """A platform as clients send it (image-spec v1.1 §image-index)."""

    architecture: str = ""
    os: str = ""
    os_version: str = msgspec.field(name="os.version", default="")
    os_features: list[str] | None = msgspec.field(name="os.features", default=None)
    variant: str = ""


def one(query: Mapping[str, str]) -> str:
    """The parameter ``platform`` → ``os/architecture[/variant]``; empty: any (InvalidArgument)."""
    text = query.get("platform")
    return _read(text) if text else ""


def several(query: MultiMapping[str]) -> list[str]:
    """All of them, when the parameter is repeated; an empty list: any (InvalidArgument)."""
    return [_read(text) for text in query.getall("platform", []) if text]


def to_remove(query: MultiMapping[str]) -> str:
    """The parameter ``platforms`` of a removal, of which Docker takes one (InvalidArgument)."""
    found = [_read(text) for text in query.getall("platforms", [])]
    if len(found) > 1:
        raise InvalidArgument("multiple platforms are not supported")
    return found[0] if found else ""


def plain(query: Mapping[str, str]) -> str:
    """The parameter ``platform`` of a pull or an import, which is plain text (InvalidArgument)."""
    text = query.get("platform", "")
    if text:
        oci_platform.parse(text)
    return text


def _read(text: str) -> str:
    if not text:
        raise InvalidArgument("failed to parse platform: unexpected end of JSON input")
    try:
        found: SentPlatform = gojson.decode(text.encode(errors="replace"), SentPlatform, "Platform")
    except InvalidArgument as e:
        words = e.message.removeprefix("invalid JSON: ").replace("unexpected EOF", "unexpected end of JSON input")
        raise InvalidArgument(f"failed to parse platform: {words}") from e
    if not found.os or not found.architecture:
        raise InvalidArgument("both OS and Architecture must be provided")
    return "/".join(filter(None, (found.os, found.architecture, found.variant)))
