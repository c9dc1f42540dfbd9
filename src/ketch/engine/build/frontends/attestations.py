"""Statements about results that front ends have made.  Blocking."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ketch.build.attest.statement import SPDX, Attestation
from ketch.build.tree import EMPTY
from ketch.engine.build.attests import written
from ketch.engine.build.frontends import files
from ketch.errors import InvalidArgument
from ketch.oci.attestation import Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ketch.build.providers import BuildSnapshots
    from ketch.build.tree import Tree
    from ketch.engine.build.frontends.results import FrontendAttestation

_BUNDLE, _SELF = 1, 0  # kinds of attestations, and of subjects
_INLINE_ONLY, _REASON = "inline-only", "reason"
_TRUE = b"true"


def lists_packages(attestations: Iterable[FrontendAttestation]) -> bool:
    """Whether a front end has listed the packages itself."""
    return any(one.predicate == SPDX or one.metadata.get(_REASON) == b"sbom" for one in attestations)


def of_frontend(snapshots: BuildSnapshots, one: FrontendAttestation, tree: Tree) -> list[Attestation]:
    """The statements of one attestation of a front end, whose files these are (InvalidArgument, NotFound)."""
    inline_only = one.metadata.get(_INLINE_ONLY) == _TRUE
    if one.kind == _BUNDLE:
        return [
            msgspec.structs.replace(found, inline_only=inline_only)
            for found in written.statements(snapshots, tree, one.path or "/", "attestation bundle")
        ]
    if not one.predicate:
        raise InvalidArgument(f"attestation {one.path}: its predicate has no type")
    if tree == EMPTY:
        raise InvalidArgument(f"attestation {one.path}: its result has no files")
    with snapshots.opened(tree) as root:
        data = files.read(root, one.path, most=written.LARGEST)
    try:
        msgspec.json.decode(data, type=dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidArgument(f"attestation {one.path}: its predicate is no JSON object: {e}") from e
    raw = [
        Subject(name=name or "_", digest=_digests(one.path, digests))
        for kind, name, digests in one.subjects
        if kind != _SELF
    ]
    return [
        Attestation(
            predicate_type=one.predicate,
            predicate=data,
            path=os.path.basename(one.path),
            subjects=raw,
            about_result=not raw or len(raw) < len(one.subjects),
            inline_only=inline_only,
        )
    ]


def _digests(path: str, digests: Sequence[str]) -> dict[str, str]:
    found = dict(one.partition(":")[::2] for one in digests)
    if not all(found) or not all(found.values()):
        raise InvalidArgument(f"attestation {path}: a digest of its subject is none", hint="give ALGORITHM:FIGURES")
    return found
