"""What one container mounts: volumes that are filled when it is made, and go with it when nobody named them; images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.engine import copyup
from ketch.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ketch.engine.context import Context
    from ketch.engine.model import Container
    from ketch.engine.volumes import Volume


def image_view(ctx: Context, ref: str) -> tuple[str, list[str]]:
    """An image's id, and its layers as overlay options (NotFound)."""
    image = ctx.images.resolve(ref)
    return image.id, ctx.snapshots.view(image.chain_ids)


def populate(ctx: Context, container: Container, chain_ids: Sequence[str]) -> None:
    """Give new volumes what the image has at their places; blocking."""
    names = [point.name for point in container.mounts if point.type == "volume"]
    ctx.volumes.attach(names, container.id)
    try:
        copyup.populate(ctx.snapshots, chain_ids, container.mounts)
    finally:
        ctx.volumes.detach(names, container.id)


def announce(ctx: Context, container: Container) -> None:
    """Events for the volumes that were made for it."""
    for point in container.mounts:
        if point.type == "volume" and ctx.volumes.get(point.name).created >= container.created:
            ctx.events.publish("volume", "create", point.name, {"driver": point.driver})


def remove_anonymous(ctx: Context, container: Container) -> None:
    """Remove the volumes that only this container used and nobody named."""
    for volume in anonymous(ctx, container):
        ctx.volumes.remove(volume.name)
        ctx.events.publish("volume", "destroy", volume.name, {"driver": volume.driver})


def anonymous(ctx: Context, container: Container, without: Collection[str] = ()) -> list[Volume]:
    """Those volumes; containers ``without`` are taken as gone."""
    found = []
    for point in container.mounts:
        if point.type != "volume" or not point.name or point.named:
            continue
        try:
            volume = ctx.volumes.get(point.name)
        except NotFound:
            continue
        if volume.anonymous and not set(ctx.volumes.used_by(volume.name)) - set(without):
            found.append(volume)
    return found
