"""``system df`` in Docker's JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ketch.api.wire import containers, images, volumes

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ketch.build.cache.pruning.usage import UsageRow
    from ketch.engine.engine import Engine
    from ketch.engine.model.reports import DiskUsage
    from ketch.images.model import Image
    from ketch.notation.api_objects import ApiObject

_KIND_OF = {"Images": "image", "Containers": "container", "Volumes": "volume", "BuildCache": "build-cache"}
KINDS = tuple(_KIND_OF.values())
CACHE = "build-cache"


def answer(engine: Engine, usage: DiskUsage, kinds: Collection[str], cache: Sequence[UsageRow] = ()) -> ApiObject:
    """The body of ``GET /system/df`` from what the engine measured of the kinds."""
    everything = engine.containers.list()
    made = images.containers_by_image(engine)
    rows = []
    roots = {image.id: image.size for image in usage.images}
    for container in everything:
        written = usage.containers.get(container.id, 0)
        rows.append(containers.row(engine, container, (written, written + roots.get(container.image_id, 0))))
    from ketch.api.wire.building import build_cache

    found: ApiObject = {
        "LayersSize": usage.layers,
        "Images": [
            images.row(engine, i, made[i.id]) | {"SharedSize": size}
            for i, size in zip(usage.images, shared_sizes(usage.images), strict=True)
        ],
        "Containers": rows,
        "Volumes": [
            volumes.wire(v)
            | {"UsageData": {"Size": usage.volumes.get(v.name, 0), "RefCount": len(engine.volumes.used_by(v.name))}}
            for v in engine.volumes.list()
            if not v.options  # what is mounted then takes no space of this directory
        ],
        "BuildCache": [build_cache.row(record) for record in cache],
    }
    return {name: found[name] if _KIND_OF.get(name, "") in ("", *kinds) else None for name in found}


def shared_sizes(all_images: list[Image]) -> list[int]:
    """The bytes of layers that each image shares with others."""
    users = Counter(chain for image in all_images for chain in set(image.chain_ids))
    return [
        sum(size for chain, size in zip(image.chain_ids, image.layer_sizes, strict=True) if users[chain] > 1)
        for image in all_images
    ]
