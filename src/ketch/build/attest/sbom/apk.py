"""Packages of Alpine and its relatives, by the database of apk(8)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ketch.build.attest.sbom.packages import Package

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.build.attest.sbom.packages import OsRelease

DATABASES = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_PACKAGE, _VERSION, _ARCH, _LICENSE, _SUMMARY, _HOMEPAGE, _ORIGIN, _MAINTAINER = "PVALTUom"


def read(text: str, path: str, system: OsRelease) -> Iterator[Package]:
    """The packages of a database: a letter and a value a line, an empty line behind each package."""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        found: dict[str, str] = {}
        for line in paragraph.splitlines():
            letter, colon, value = line.partition(":")
            if colon:
                found.setdefault(letter, value)
        name = found.get(_PACKAGE, "")
        if not name:
            continue
        origin = found.get(_ORIGIN, "")
        yield Package(
            kind="apk",
            name=name,
            version=found.get(_VERSION, ""),
            space=system.id or "alpine",
            qualifiers=system.qualifiers(arch=found.get(_ARCH, ""), upstream=origin if origin != name else ""),
            found_in=path,
            supplier=found.get(_MAINTAINER, ""),
            license=found.get(_LICENSE, ""),
            summary=found.get(_SUMMARY, ""),
            homepage=found.get(_HOMEPAGE, ""),
        )
