"""Annotations of an output: of manifests, of the index of several platforms, and of what describes either.

annotation[-TYPE][PLATFORM].KEY=VALUE    TYPE: manifest (as without), manifest-descriptor, index, index-descriptor
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import InvalidArgument
from ketch.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.oci.manifest import Platform

_NAME = re.compile(r"annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/.-]+)\])?\.(.+)", re.DOTALL)
_OF_PLATFORMS = ("manifest", "manifest-descriptor")
_OF_INDEXES = ("index", "index-descriptor")


class _Row(NamedTuple):
    kind: str
    platform: str  # in its canonical form; empty: of all
    key: str
    value: str


class OutputAnnotations:
    """The annotations among the attributes of one output."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        """InvalidArgument for what names nothing that could have any."""
        self._rows = [_row(name, value) for name, value in attributes.items() if re.match(r"annotation[-.\[]", name)]

    def __bool__(self) -> bool:
        return bool(self._rows)

    def of(self, kind: str, platform: Platform | None = None) -> dict[str, str]:
        """The annotations of a kind, for a platform."""
        named = platforms.text(platform) if platform is not None else ""
        chosen = [row for row in self._rows if row.kind == kind]
        found = {row.key: row.value for row in chosen if not row.platform}
        return found | {row.key: row.value for row in chosen if row.platform and row.platform == named}

    def check(self, *, many: bool) -> None:
        """Refuse those of an index where there is none (InvalidArgument)."""
        for row in self._rows:
            if row.kind in _OF_INDEXES and not many:
                raise InvalidArgument(f"annotation-{row.kind}.{row.key}: there is no index of a single platform")


def _row(name: str, value: str) -> _Row:
    found = _NAME.fullmatch(name)
    if found is None:
        raise InvalidArgument(f"{name[:100]}: it names no annotation", hint="write annotation-TYPE[PLATFORM].KEY=VALUE")
    kind, platform, key = found[1] or "manifest", found[2] or "", found[3]
    if kind not in (*_OF_PLATFORMS, *_OF_INDEXES):
        known = ", ".join((*_OF_PLATFORMS, *_OF_INDEXES))
        raise InvalidArgument(f"{name[:100]}: unknown annotation type {kind}", hint=f"the types are {known}")
    if platform and kind in _OF_INDEXES:
        raise InvalidArgument(f"{name[:100]}: an index is of all platforms", hint="leave out the platform")
    canonical = platforms.text(platforms.canonical(platforms.named(platform))) if platform else ""
    return _Row(kind, canonical, key, value)
