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
    """A predicate (JSON) of its type about a result of a build, or about ``subjects``.

    ``path``: its file's name where results are files; one that is ``inline_only`` is no file.
    """

    predicate_type: str
    predicate: bytes
    path: str
    subjects: Sequence[Subject] = ()
    inline_only: bool = False

    def statement(self, subjects: Iterable[Subject]) -> bytes:
        """The statement about a result that is these ``subjects``."""
        found = InTotoStatement(
            predicate_type=self.predicate_type,
            subject=list(self.subjects or subjects),
            predicate=msgspec.Raw(self.predicate),
        )
        return msgspec.json.encode(found)
