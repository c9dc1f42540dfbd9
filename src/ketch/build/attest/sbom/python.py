"""Packages of Python, by the metadata that pip and others leave beside them (core metadata 2.4)."""

from __future__ import annotations

import re

from ketch.build.attest.sbom.packages import Package, fields


def is_metadata(directory: str, name: str) -> bool:
    """Whether a file is a package's metadata, by its name and the directory's."""
    if name == "METADATA":
        return directory.endswith(".dist-info")
    if name == "PKG-INFO":
        return directory.endswith(".egg-info")
    return name.endswith(".egg-info")


def read(text: str, path: str) -> Package | None:
    """The package of a metadata file; None: it names none."""
    one = fields(text)
    name = one.get("name", "")
    if not name:
        return None
    author = one.get("author") or one.get("maintainer") or ""
    email = one.get("author-email") or one.get("maintainer-email") or ""
    license_text = one.get("license-expression") or one.get("license") or ""
    return Package(
        kind="pypi",
        name=re.sub(r"[-_.]+", "-", name).lower(),  # as PyPI itself writes it
        version=one.get("version", ""),
        found_in=path,
        supplier=email if "<" in email or not author else f"{author} <{email}>" if email else author,
        license=license_text.partition("\n")[0],
        summary=one.get("summary", "").partition("\n")[0],
        homepage=one.get("home-page", ""),
    )
