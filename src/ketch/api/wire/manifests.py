"""Manifests behind an image's name, one for each platform, of which one is the image here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.errors import InvalidArgument
from ketch.oci import attestation as attestations
from ketch.oci import manifest as oci

if TYPE_CHECKING:
    from collections.abc import Collection

    from ketch.engine.engine import Engine
    from ketch.images.model import Image
    from ketch.notation.api_objects import ApiObject

SINCE = (1, 48)


def complete(engine: Engine, answer: ApiObject, *, detailed: bool, one: bool = False) -> None:
    """Add the target's descriptor and, ``detailed``, the manifests to a row or to what ``inspect`` says.

    Of ``one`` platform's image the descriptor is that of its manifest.
    """
    image = engine.images.get(answer["Id"])
    target = image.manifest if one else _target(engine, image, answer["RepoTags"])
    index = engine.images.store.catalog.indexes.get(target)
    answer["Descriptor"] = msgspec.to_builtins(_descriptor(engine, target, image, index))
    if not detailed:
        return
    if index is None:
        single = _descriptor(engine, target, image, None)
        answer["Manifests"] = [_of_image(engine, single, image)]
    else:
        attested = engine.images.store.catalog.attested[target]
        answer["Manifests"] = [_summary(engine, one, attested.get(one.digest, ())) for one in index.manifests]


def _target(engine: Engine, image: Image, tags: list[str]) -> str:
    catalog = engine.images.store.catalog
    for tag in tags:
        try:
            name = catalog.name_of(tag)
        except InvalidArgument:
            continue
        if name is not None:
            return catalog.names[name].target
    return image.manifest


def _descriptor(engine: Engine, target: str, image: Image, index: oci.Index | None) -> oci.Descriptor:
    content = engine.images.store.content
    return oci.Descriptor(
        media_type=oci.MANIFEST if index is None else index.media_type or oci.INDEX,
        digest=target,
        size=content.size(target) if content.exists(target) else 0,
        platform=image.platform if index is None else None,
    )


def _summary(engine: Engine, descriptor: oci.Descriptor, blobs: Collection[str]) -> ApiObject:
    """A manifest of an index; ``blobs``: those of an attestation manifest that is here."""
    store = engine.images.store
    image = store.catalog.by_manifest(descriptor.digest)
    if image is not None:
        return _of_image(engine, descriptor, image)
    size = sum(map(store.content.size, blobs))
    found: ApiObject = {
        "ID": descriptor.digest,
        "Descriptor": msgspec.to_builtins(descriptor),
        "Available": bool(blobs),
        "Size": {"Content": size, "Total": size},
    }
    if attestations.is_attestation(descriptor):
        return found | {"Kind": "attestation", "AttestationData": {"For": attestations.about(descriptor)}}
    platform = descriptor.platform
    if platform is None or platform.architecture == "unknown":
        return found | {"Kind": "unknown"}
    return found | {"Kind": "image", "ImageData": _data(msgspec.to_builtins(platform), [], 0)}


def _of_image(engine: Engine, descriptor: oci.Descriptor, image: Image) -> ApiObject:
    content = engine.images.store.content
    known = descriptor.digest in (image.manifest, *image.forms)
    blobs = {descriptor.digest, image.id, *(image.blobs_of(descriptor.digest) if known else image.blobs)}
    size = sum(content.size(blob) for blob in blobs if content.exists(blob))
    users = [container for container, _ in engine.images.containers_of(image.id)]
    return {
        "ID": descriptor.digest,
        "Descriptor": msgspec.to_builtins(descriptor),
        "Available": True,
        "Size": {"Content": size, "Total": size + image.size},
        "Kind": "image",
        "ImageData": _data(msgspec.to_builtins(descriptor.platform or image.platform), users, image.size),
    }


def _data(platform: ApiObject, users: list[str], unpacked: int) -> ApiObject:
    return {"Platform": platform, "Containers": users, "Size": {"Unpacked": unpacked}, "UnpackedSize": unpacked}
