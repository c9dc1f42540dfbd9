"""Attestations that a build is asked for: the values of a front end's attributes ``attest:TYPE``.

    attest:provenance   mode=min|max, version=v1|v0.2, builder-id, reproducible, inline-only, filename
    attest:sbom         generator=IMAGE, and what the generator is to be told

(BuildKit's frontend/attestations/parse.go and docs/attestations say what these mean.)
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.errors import InvalidArgument
from ketch.notation import booleans

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "attest:"
_OLD_PREFIX = "build-arg:BUILDKIT_ATTEST_"
MIN, MAX = "min", "max"
V1, V02 = "v1", "v0.2"
_MODES = {"": MAX, "full": MAX, MAX: MAX, MIN: MIN}
_OF_SBOM = ("type", "generator", "inline-only", "filename", "disabled")


class ProvenanceOptions(Struct, frozen=True, kw_only=True):
    """Options of a provenance: what it says, and where it is (``inline_only``: in images, and not beside files)."""

    mode: str = MAX
    version: str = V1
    builder_id: str = ""
    reproducible: bool = False
    inline_only: bool = False
    filename: str = "provenance.json"


class SbomOptions(Struct, frozen=True, kw_only=True):
    """Options of lists of packages: the image that makes them, or (empty) Ketch itself; what the image is told."""

    generator: str = ""
    params: Mapping[str, str] = {}


class AttestOptions(Struct, frozen=True, kw_only=True):
    """The attestations that are asked for."""

    provenance: ProvenanceOptions | None = None
    sbom: SbomOptions | None = None


def read(attrs: Mapping[str, str]) -> AttestOptions:
    """The attestations among a front end's attributes (InvalidArgument)."""
    provenance, sbom = None, None
    for name, value in attrs.items():
        prefix = next((one for one in (PREFIX, _OLD_PREFIX) if name.startswith(one)), None)
        if prefix is None:
            continue
        kind = name.removeprefix(prefix).lower()
        fields = _fields(kind, value)
        if _truth(kind, fields, "disabled"):
            continue
        if kind == "provenance":
            provenance = _provenance(fields)
        elif kind == "sbom":
            params = {key: one for key, one in fields.items() if key not in _OF_SBOM}
            sbom = SbomOptions(generator=fields.get("generator", ""), params=params)
        else:
            raise InvalidArgument(f'unknown attestation type "{kind}"', hint="there are provenance and sbom")
    return AttestOptions(provenance=provenance, sbom=sbom)


def _fields(kind: str, value: str) -> dict[str, str]:
    if not value:
        return {}
    try:
        cells = next(csv.reader([value], strict=True), [])
    except csv.Error as e:
        raise InvalidArgument(f"failed to parse {kind}: {e}") from e
    parts = (cell.partition("=") for cell in cells)
    return {name: text for name, _, text in parts}


def _provenance(fields: Mapping[str, str]) -> ProvenanceOptions:
    mode, version = fields.get("mode", ""), fields.get("version") or V1
    if mode not in _MODES:
        raise InvalidArgument(f'invalid mode "{mode}"', hint="of a provenance it is min or max")
    if version not in (V1, V02):
        raise InvalidArgument(f"invalid provenance SLSA version: {version}", hint="there are v1 and v0.2")
    filename = fields.get("filename") or "provenance.json"
    if "/" in filename or filename in (".", ".."):
        raise InvalidArgument(f"invalid file name `{filename}` for a provenance", hint="give a name, and no path")
    return ProvenanceOptions(
        mode=_MODES[mode],
        version=version,
        builder_id=fields.get("builder-id", ""),
        reproducible=_truth("provenance", fields, "reproducible"),
        inline_only=_truth("provenance", fields, "inline-only"),
        filename=filename,
    )


def _truth(kind: str, fields: Mapping[str, str], name: str) -> bool:
    text = fields.get(name, "false")
    try:
        return booleans.strict(text)
    except booleans.NotABooleanError as e:
        raise InvalidArgument(f'failed to parse {name} flag "{text}" of {kind}: {e}') from e
