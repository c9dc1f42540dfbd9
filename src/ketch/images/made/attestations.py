"""Attestation manifests that are made here: of statements, and of those about another form of the same image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.images import layoutindex
from ketch.images.assembly import encode_config, write_manifest
from ketch.oci import attestation as attestations
from ketch.oci import manifest as oci
from ketch.oci.config import ImageConfig, RootFS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.images.model import Image
    from ketch.storage.content.leases import Lease
    from ketch.storage.content.store import ContentStore


def write(content: ContentStore, lease: Lease, image: str, found: Sequence[tuple[str, bytes]]) -> oci.Descriptor:
    """Write statements (type of the predicate, JSON) about an image's manifest; returns their manifest's descriptor.

    The lease holds all of it.  Blocking.
    """
    layers = [
        oci.Descriptor(
            media_type=attestations.MEDIA_TYPE,
            digest=content.put(data, hold=lease.hold, durable=False),
            size=len(data),
            annotations={attestations.PREDICATE_TYPE: predicate_type},
        )
        for predicate_type, data in found
    ]
    return _of_layers(content, lease, image, layers)


def in_other_form(content: ContentStore, lease: Lease, index: oci.Index, images: Mapping[str, Image]) -> str:
    """Write an index some of whose images have another form, ``manifest → the image in it``; returns its digest.

    Attestations about them are about that form.  The lease holds what is written.  Blocking (KetchError).
    """
    manifests = {old: image.manifest for old, image in images.items()}
    layers: dict[str, oci.Descriptor] = {}
    for old, new in manifests.items():
        before, after = _layers(content, old), _layers(content, new)
        layers.update({one.digest: other for one, other in zip(before, after, strict=True)})
    found = []
    for descriptor in index.manifests:
        if descriptor.digest in manifests:
            digest = manifests[descriptor.digest]
            descriptor = msgspec.structs.replace(descriptor, digest=digest, size=content.size(digest))
        else:
            descriptor = _about_other_form(content, lease, descriptor, manifests, layers)
        found.append(descriptor)
    return content.put(oci.encode(msgspec.structs.replace(index, manifests=found)), hold=lease.hold)


def _layers(content: ContentStore, manifest: str) -> list[oci.Descriptor]:
    return msgspec.json.decode(content.read(manifest), type=oci.Manifest).layers


def _about_other_form(
    content: ContentStore,
    lease: Lease,
    descriptor: oci.Descriptor,
    manifests: Mapping[str, str],
    layers: Mapping[str, oci.Descriptor],
) -> oci.Descriptor:
    """The same statements about other forms; what is about another image, or is not here, stays what it is."""
    image = manifests.get(attestations.about(descriptor))
    manifest = layoutindex.attestation_manifest(content, descriptor) if image else None
    if image is None or manifest is None:
        return descriptor
    found = []
    for layer in manifest.layers:
        if layer.media_type == attestations.MEDIA_TYPE:
            data = attestations.of_other_form(layoutindex.statement(content, layer), manifests, layers)
            digest = content.put(data, hold=lease.hold, durable=False)
            layer = msgspec.structs.replace(layer, digest=digest, size=len(data))
        found.append(layer)
    return _of_layers(content, lease, image, found)


def _of_layers(content: ContentStore, lease: Lease, image: str, layers: list[oci.Descriptor]) -> oci.Descriptor:
    root = RootFS(diff_ids=[layer.digest for layer in layers])
    config = ImageConfig(architecture="unknown", os="unknown", rootfs=root)
    config_digest = content.put(encode_config(config), hold=lease.hold, durable=False)
    digest = write_manifest(content, lease, config_digest, layers)
    return oci.Descriptor(
        media_type=oci.MANIFEST,
        digest=digest,
        size=content.size(digest),
        annotations={attestations.KIND: attestations.ATTESTATION, attestations.ABOUT: image},
        platform=attestations.NO_PLATFORM,
    )
