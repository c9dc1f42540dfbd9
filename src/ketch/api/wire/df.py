"""``system df`` in Docker's JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ketch.api.wire import containers, images
from ketch.notation import times

if TYPE_CHECKING:
    from ketch.engine.engine import Engine
    from ketch.engine.model.volume import Volume
    from ketch.images.model import Image


def answer(engine: Engine, raw: dict[str, Any]) -> dict[str, Any]:
    """The body of ``GET /system/df`` from what the engine measured."""
    everything = engine.containers.list()
    rows = []
    for container in everything:
        written = raw["containers"].get(container.id, 0)
        rows.append(containers.row(engine, container, (written, written)))
    return {
        "LayersSize": raw["layers_size"],
        "Images": [
            images.row(i, sum(c.image_id == i.id for c in everything)) | {"SharedSize": size}
            for i, size in zip(raw["images"], shared_sizes(raw["images"]), strict=True)
        ],
        "Containers": rows,
        "Volumes": [
            volume(engine, v)
            | {"UsageData": {"Size": raw["volumes"].get(v.name, 0), "RefCount": len(engine.volumes.used_by(v.name))}}
            for v in engine.volumes.list()
        ],
        "BuildCache": [],
    }  # fmt: skip


def shared_sizes(all_images: list[Image]) -> list[int]:
    """For each image the bytes of its layers that another image has, too."""
    users = Counter(chain for image in all_images for chain in set(image.chain_ids))
    return [
        sum(size for chain, size in zip(image.chain_ids, image.layer_sizes, strict=True) if users[chain] > 1)
        for image in all_images
    ]


def volume(engine: Engine, one: Volume) -> dict[str, Any]:
    """A volume as ``/volumes`` shows it."""
    labels = dict(one.labels)
    if one.anonymous:
        labels["com.docker.volume.anonymous"] = ""
    return {
        "CreatedAt": times.rfc3339_or_never(one.created // 1_000_000_000 * 1_000_000_000),
        "Driver": one.driver,
        "Labels": labels or None,
        "Mountpoint": one.mountpoint,
        "Name": one.name,
        "Options": one.options or None,
        "Scope": "local",
    }
