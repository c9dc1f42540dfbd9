"""Index of the images of one build for several platforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.oci import manifest as oci

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease


def write(
    store: ImageStore, lease: Lease, images: Sequence[Image], annotations: Mapping[str, str] | None = None
) -> str:
    """Write the index of images whose manifests are in place, held by the lease; returns its digest.  Blocking."""
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
        ],
    )
    return store.content.put(oci.encode(found), hold=lease.hold, durable=False)
