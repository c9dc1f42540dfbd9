"""Packages of Debian and its relatives, by the status file of dpkg(1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ketch.build.attest.sbom.packages import Package, fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.build.attest.sbom.packages import OsRelease

STATUS = "var/lib/dpkg/status"
PARTS = "var/lib/dpkg/status.d/"  # of images without dpkg: a file for each package
_INSTALLED = ("installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending")


def read(text: str, path: str, system: OsRelease) -> Iterator[Package]:
    """The packages of a status file; what was removed and has only its settings left is none."""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        one = fields(paragraph.strip("\n"))
        name, version = one.get("package", ""), one.get("version", "")
        state = one.get("status", "").split()
        if not name or (state and state[-1] not in _INSTALLED):
            continue
        source, _, its_version = one.get("source", "").partition(" ")
        upstream = source and f"{source}@{its_version.strip('()')}".rstrip("@")
        yield Package(
            kind="deb",
            name=name,
            version=version,
            space=system.id or "debian",
            qualifiers=system.qualifiers(arch=one.get("architecture", ""), upstream=upstream),
            found_in=path,
            supplier=one.get("maintainer", ""),
            summary=one.get("description", "").partition("\n")[0],
            homepage=one.get("homepage", ""),
        )
