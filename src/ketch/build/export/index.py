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
    images: Sequence[Image],
    annotations: Mapping[str, str] | None = None,
    attested: Sequence[oci.Descriptor] = (),
) -> str:
    """Write the index of images whose manifests are in place, held by the lease; returns its digest.  Blocking.

    ``attested``: the attestation manifests about them.
    """
    found = oci.Index(
        media_type=oci.INDEX,
        annotations=dict(annotations) if annotations else None,
        manifests=[
            oci.Descriptor(
                media_type=oci.MANIFEST,
                digest=image.manifest,
                size=store.content.size(image.manifest),
                platform=image.platform,
            )
            for image in images
        ]
        + list(attested),
    )
    return store.content.put(oci.encode(found), hold=lease.hold, durable=False)


def described(store: ImageStore, digest: str) -> oci.Descriptor:
    """The descriptor of a manifest or an index that is in place.  Blocking."""
    found = msgspec.json.decode(store.content.read(digest), type=_Typed)
    return oci.Descriptor(media_type=found.media_type, digest=digest, size=store.content.size(digest))
