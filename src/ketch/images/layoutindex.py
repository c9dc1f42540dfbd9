"""``index.json`` of the content store, and the indexes that it holds (image-spec v1.1 §image-layout, §image-index)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.errors import KetchError
from ketch.oci import attestation as attestations
from ketch.oci import manifest as oci

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.images.catalog import Catalog
    from ketch.storage.content.store import ContentStore

_LARGEST = 4 << 20
_LARGEST_STATEMENT = 80 << 20  # bytes; BuildKit reads no larger one


def encode(catalog: Catalog, content: ContentStore) -> bytes:
    """``index.json`` for other programs: an entry for each tag."""
    entries = []
    for name, named in sorted(catalog.names.items()):
        if "@" in name or not content.exists(named.target):
            continue
        index = catalog.indexes.get(named.target)
        entries.append(
            oci.Descriptor(
                media_type=(index.media_type or oci.INDEX) if index is not None else oci.MANIFEST,
                digest=named.target,
                size=content.size(named.target),
                annotations={"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
                platform=None if index is not None else catalog.images[named.id].platform,
            )
        )
    return oci.encode(oci.Index(manifests=entries, media_type=oci.INDEX))


def read(content: ContentStore, digest: str) -> oci.Index | None:
    """The index with this digest; None when it is none, or not here."""
    try:
        return msgspec.json.decode(content.read(digest, _LARGEST), type=oci.Index)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KetchError):
        return None


def attested(content: ContentStore, index: oci.Index) -> Mapping[str, frozenset[str]]:
    """The attestation manifests of an index that are here with all that they have: digest → blobs."""
    found = {}
    for descriptor in index.manifests:
        manifest = attestation_manifest(content, descriptor)
        if manifest is not None:
            blobs = frozenset((descriptor.digest, manifest.config.digest, *(one.digest for one in manifest.layers)))
            if all(map(content.exists, blobs)):
                found[descriptor.digest] = blobs
    return found


def attestation_manifest(content: ContentStore, descriptor: oci.Descriptor) -> oci.Manifest | None:
    """The manifest of a descriptor that is of an attestation manifest; None when it is none, or not here."""
    if not attestations.is_attestation(descriptor) or not content.exists(descriptor.digest):
        return None
    try:
        return msgspec.json.decode(content.read(descriptor.digest, _LARGEST), type=oci.Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KetchError):
        return None


def statement(content: ContentStore, layer: oci.Descriptor) -> bytes:
    """A statement, by its descriptor in such a manifest (KetchError: it is not here, or too large)."""
    return content.read(layer.digest, _LARGEST_STATEMENT)
