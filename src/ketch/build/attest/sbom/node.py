"""Packages of Node.js, by the ``package.json`` of each directory in ``node_modules``."""

from __future__ import annotations

import msgspec

from ketch.build.attest.sbom.packages import Package


class _Person(msgspec.Struct):
    name: str = ""
    email: str = ""


class _License(msgspec.Struct):
    type: str = ""


class _PackageJson(msgspec.Struct):
    name: str = ""
    version: str = ""
    description: object = None
    homepage: object = None
    author: object = None
    license: object = None


def is_metadata(path: str) -> bool:
    """Whether a file is a package's: ``…/node_modules/[@SCOPE/]NAME/package.json``."""
    parts = path.split("/")
    return (
        parts[-1] == "package.json"
        and len(parts) > 2
        and (
            parts[-3] == "node_modules"
            or (len(parts) > 3 and parts[-4] == "node_modules" and parts[-3].startswith("@"))
        )
    )


def read(text: str, path: str) -> Package | None:
    """The package of a ``package.json``; None: it is none."""
    try:
        one = msgspec.json.decode(text, type=_PackageJson)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not one.name or not one.version:
        return None
    scope, _, name = one.name.rpartition("/")
    return Package(
        kind="npm",
        name=name,
        space=scope,
        version=one.version,
        found_in=path,
        supplier=_person(one.author),
        license=_license(one.license),
        summary=one.description if isinstance(one.description, str) else "",
        homepage=one.homepage if isinstance(one.homepage, str) else "",
    )


def _person(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        found = msgspec.convert(value, _Person)
    except msgspec.ValidationError:
        return ""
    return f"{found.name} <{found.email}>" if found.name and found.email else found.name


def _license(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return msgspec.convert(value, _License).type
    except msgspec.ValidationError:
        return ""
