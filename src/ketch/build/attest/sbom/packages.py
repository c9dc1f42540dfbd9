"""Packages that are installed in a tree of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.build.attest import purl

if TYPE_CHECKING:
    from collections.abc import Mapping


class Package(Struct, frozen=True, kw_only=True, order=True):
    """A package: of which kind (a package URL's type), where its record was found, what this says."""

    kind: str
    name: str
    version: str
    found_in: str
    space: str = ""
    qualifiers: tuple[tuple[str, str], ...] = ()
    supplier: str = ""
    license: str = ""
    summary: str = ""
    homepage: str = ""

    @property
    def url(self) -> str:
        """Its package URL."""
        return purl.package(self.kind, self.name, self.version, space=self.space, qualifiers=dict(self.qualifiers))


class OsRelease(Struct, frozen=True, kw_only=True):
    """The system that a tree is of (os-release(5)); empty where it does not say."""

    id: str = ""
    version: str = ""

    def qualifiers(self, **more: str) -> tuple[tuple[str, str], ...]:
        """Qualifiers of its packages' URLs."""
        distro = f"{self.id}-{self.version}" if self.id and self.version else self.id
        return tuple(sorted((name, value) for name, value in {**more, "distro": distro}.items() if value))


def os_release(text: str) -> OsRelease:
    """The system by its os-release."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            found[name] = value.strip().strip("\"'")
    return OsRelease(id=found.get("ID", ""), version=found.get("VERSION_ID", ""))


def fields(text: str) -> Mapping[str, str]:
    """``Name: value`` a line, as in RFC 822 headers; continued lines begin with a space, the first of a name counts.

    Names are in lower case.  An empty line ends it.
    """
    found: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if not line.strip():
            break
        if line[0] in " \t":
            if last:
                found[last] += f"\n{line.strip()}"
            continue
        name, colon, value = line.partition(":")
        last = name.strip().lower() if colon else ""
        if last in found:
            last = ""
        elif last:
            found[last] = value.strip()
    return found
