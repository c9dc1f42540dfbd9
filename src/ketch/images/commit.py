"""A new image from a parent and what a container wrote on top of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import InvalidArgument
from ketch.images.made.image import image_of, layer_of, layers_of
from ketch.notation import times
from ketch.oci import reference
from ketch.oci.config import History, ImageConfig
from ketch.storage.layers import tars
from ketch.storage.layers.draft import BuiltLayerDraft
from ketch.storage.snapshots.overlay import check_depth

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.oci.config import RunConfig
    from ketch.storage.content.leases import Lease
    from ketch.storage.layers.tars import TarFacts


def commit(
    store: ImageStore,
    parent: Image,
    config: RunConfig,
    fill: Callable[[str], TarFacts | None] | None,
    *,
    name: str = "",
    step: History,
) -> Image:
    """Make the image; ``fill(directory)`` writes the layer's files in overlay's own form; None: no layer.

    It returns the facts of the layer's tar, or None.  Blocking.  ``name`` is normalized; ``step`` tells how the image
    was made, but for the time.  Nothing stays when any of it fails.
    """
    with store.lease() as lease:
        lease.hold(*parent.parts())
        store.resolve(parent.id)  # it may have gone before it was held (NotFound)
        layers = list(parent.chain_ids)
        found = layers_of(store, parent)
        if fill is not None:
            check_depth(len(layers) + 1)
            layers.append(_new_layer(store, lease, fill))
            found.append(layer_of(store, lease, layers[-1]))
        now = times.fixed(time.time_ns())
        step = msgspec.structs.replace(step, created=now, empty_layer=fill is None)
        full = msgspec.structs.replace(
            parent.config,
            created=now,
            author=step.author,
            comment=step.comment,
            config=config,
            history=[*_past(parent.config), step],
        )
        image = image_of(store, lease, found, layers, full)
        image.parent = parent.id
        image.last_tagged = time.time_ns() if name else 0
        return store.add([(image, [name] if name else [])])[0]


def _past(config: ImageConfig) -> list[History]:
    """The parent's history, with an entry for every layer (as validators require)."""
    past = list(config.history or [])
    told = sum(not step.empty_layer for step in past)
    return [History(created=config.created)] * (len(config.rootfs.diff_ids) - told) + past


def check_name(repo: str, tag: str) -> str:
    """The normalized name for an image, empty when none is given (InvalidArgument)."""
    if not repo:
        return ""
    if tag and not reference.is_tag(tag):
        raise InvalidArgument("invalid tag format")
    parsed = reference.parse(repo)
    if parsed.digest:
        raise InvalidArgument("cannot import digest reference")
    return str(reference.parse(f"{parsed.repository}:{tag}") if tag else parsed)


def _new_layer(store: ImageStore, lease: Lease, fill: Callable[[str], TarFacts | None]) -> str:
    """The id of a layer whose files are written to its directory."""
    draft = BuiltLayerDraft(store.layers, lease)
    try:
        facts = fill(draft.directory)
        layer = draft.commit()
    except BaseException:
        draft.abort()
        raise
    if facts is not None:
        tars.keep(store.layers, layer, facts)
    return layer
