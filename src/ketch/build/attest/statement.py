"""Attestations of a build's results, and the predicates that there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ketch.oci.attestation import InTotoStatement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ketch.oci.attestation import Subject

PROVENANCE = "https://slsa.dev/provenance/"
PROVENANCE_V1, PROVENANCE_V02 = f"{PROVENANCE}v1", f"{PROVENANCE}v0.2"
SPDX = "https://spdx.dev/Document"


class Attestation(Struct, frozen=True, kw_only=True):
    """A predicate (JSON) of its type about a result of a build, or about ``subjects`` (or both, ``about_result``).

    ``path``: its file's name where results are files; one that is ``inline_only`` is no file.
    """

    predicate_type: str
    predicate: bytes
    path: str
    subjects: Sequence[Subject] = ()
    about_result: bool = True
    inline_only: bool = False

    def statement(self, subjects: Iterable[Subject]) -> bytes:
        """The statement about a result that is these ``subjects``."""
        found = InTotoStatement(
            predicate_type=self.predicate_type,
            subject=[*(subjects if self.about_result else ()), *self.subjects],
            predicate=msgspec.Raw(self.predicate),
        )
        return msgspec.json.encode(found)
