"""Statements about an image, as Docker's API 1.55 has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.errors import InvalidArgument
from ketch.images import layoutindex
from ketch.oci import attestation as attestations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ketch.engine.engine import Engine
    from ketch.images.model import Image
    from ketch.notation.api_objects import ApiObject
    from ketch.oci.manifest import Descriptor


def statements(engine: Engine, name: str, platform: str, kinds: Collection[str], *, whole: bool) -> list[ApiObject]:
    """The statements about an image, or about its variant for a platform (NotFound); ``whole``: with their text.

    ``kinds``: the types of predicates that are asked for; empty: all.
    """
    image = engine.images.get(name, platform)
    content = engine.images.store.content
    found = []
    for layer in _layers(engine, name, image):
        kind = (layer.annotations or {}).get(attestations.PREDICATE_TYPE, "")
        if kinds and kind not in kinds:
            continue
        row: ApiObject = {"Descriptor": msgspec.to_builtins(layer), "PredicateType": kind}
        if whole:
            row["Statement"] = msgspec.Raw(layoutindex.statement(content, layer))
        found.append(row)
    return found


def _layers(engine: Engine, name: str, image: Image) -> Iterator[Descriptor]:
    """The statements' descriptors, of the index that the name stands for (of an id: those of all its names)."""
    store = engine.images.store
    catalog = store.catalog
    try:
        known = catalog.name_of(name)
    except InvalidArgument:  # an id
        known = None
    names = [known] if known else catalog.names_of(image.id)
    mine = {image.manifest, *image.forms}
    told: set[str] = set()
    for target in dict.fromkeys(catalog.names[one].target for one in names):
        index = catalog.indexes.get(target)
        for descriptor in index.manifests if index is not None else ():
            if attestations.about(descriptor) not in mine or descriptor.digest not in catalog.attested[target]:
                continue
            manifest = layoutindex.attestation_manifest(store.content, descriptor)
            for layer in manifest.layers if manifest is not None else ():
                if layer.media_type == attestations.MEDIA_TYPE and layer.digest not in told:
                    told.add(layer.digest)
                    yield layer
