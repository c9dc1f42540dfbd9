"""Attestations of images: manifests in an index that are about another one, and the in-toto statements that they have.

    index ─┬─ manifest  linux/amd64
           └─ manifest  unknown/unknown, annotated: which manifest it is about
                 ├─ config   of no platform
                 └─ layers   statements (JSON), annotated: what kind of predicate they have

(BuildKit's docs/attestations/attestation-storage.md; in-toto attestation v0.1.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from ketch.oci.manifest import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.oci.manifest import Descriptor

KIND, ABOUT = "vnd.docker.reference.type", "vnd.docker.reference.digest"  # annotations of such a manifest's descriptor
ATTESTATION = "attestation-manifest"
NO_PLATFORM = Platform(architecture="unknown", os="unknown")
MEDIA_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "in-toto.io/predicate-type"  # an annotation of a statement's descriptor
_V01 = "https://in-toto.io/Statement/v0.1"


def is_attestation(descriptor: Descriptor) -> bool:
    """Whether a descriptor in an index is of an attestation manifest."""
    return (descriptor.annotations or {}).get(KIND) == ATTESTATION


def about(descriptor: Descriptor) -> str:
    """The digest of the image's manifest that an attestation manifest is about; empty: it is none."""
    return (descriptor.annotations or {}).get(ABOUT, "") if is_attestation(descriptor) else ""


class Subject(Struct, frozen=True, kw_only=True):
    """Something that a statement is about: a name, and digests by algorithm, in hexadecimal figures."""

    name: str
    digest: dict[str, str]


class InTotoStatement(Struct, kw_only=True):
    """A statement; its predicate is kept byte for byte."""

    type: str = msgspec.field(name="_type", default=_V01)
    predicate_type: str = msgspec.field(name="predicateType")
    subject: list[Subject] | None = None
    predicate: msgspec.Raw


def subject(name: str, digest: str) -> Subject:
    """A subject of one digest, ``ALGORITHM:FIGURES``."""
    algorithm, _, figures = digest.partition(":")
    return Subject(name=name, digest={algorithm: figures})


def of_other_form(data: bytes, manifests: Mapping[str, str], layers: Mapping[str, Descriptor]) -> bytes:
    """A statement about another form of the same image (DecodeError: it is no statement).

    Subjects that are one of ``manifests`` (old digest → new) are the new one; where the predicate has the descriptor
    of one of ``layers`` (old digest → new descriptor) it has the new one.
    """
    found = msgspec.json.decode(data, type=InTotoStatement)
    found.subject = [
        Subject(name=one.name, digest={kind: _renamed(kind, text, manifests) for kind, text in one.digest.items()})
        for one in found.subject or ()
    ]
    if any(digest.encode() in data for digest in layers):
        told = _with_layers(msgspec.json.decode(found.predicate), layers)
        found.predicate = msgspec.Raw(msgspec.json.encode(told))
    return msgspec.json.encode(found)


def _renamed(algorithm: str, figures: str, digests: Mapping[str, str]) -> str:
    whole = f"{algorithm}:{figures}"
    return digests.get(whole, whole).partition(":")[2]


def _with_layers(value: Any, layers: Mapping[str, Descriptor]) -> Any:
    if isinstance(value, list):
        return [_with_layers(one, layers) for one in value]
    if not isinstance(value, dict):
        return value
    digest = value.get("digest")
    if "mediaType" in value and isinstance(digest, str) and digest in layers:
        return msgspec.to_builtins(layers[digest])
    return {name: _with_layers(one, layers) for name, one in value.items()}
