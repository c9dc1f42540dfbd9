"""Index of the images of one build for several platforms, and what describes what names mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.oci import manifest as oci

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease


class _Typed(msgspec.Struct, rename="camel"):
    """The part that manifests and indexes have in common."""

    media_type: str


def write(
    store: ImageStore,
    lease: Lease,
    manifests: Sequence[oci.Descriptor],
    annotations: Mapping[str, str] | None = None,
    *,
    media_type: str = oci.INDEX,
) -> str:
    """Write the index of manifests that are in place, held by the lease; returns its digest.  Blocking."""
    found = oci.Index(
        media_type=media_type,
        annotations=dict(annotations) if annotations else None,
        manifests=list(manifests),
    )
    return store.content.put(oci.encode(found), hold=lease.hold, durable=False)


def described(
    store: ImageStore, digest: str, annotations: Mapping[str, str] | None = None, image: Image | None = None
) -> oci.Descriptor:
    """The descriptor of a manifest or an index that is in place, perhaps of an image's.  Blocking."""
    found = msgspec.json.decode(store.content.read(digest), type=_Typed)
    return oci.Descriptor(
        media_type=found.media_type,
        digest=digest,
        size=store.content.size(digest),
        platform=image.platform if image is not None else None,
        annotations=dict(annotations) if annotations else None,
    )
