"""What one container mounts: volumes that are filled when it is made, and go with it when nobody named them; images."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ketch.engine.volumes import copy_up
from ketch.notation import booleans

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ketch.engine.model.records import Container, MountPoint
    from ketch.engine.parts import Context
    from ketch.engine.volumes.store import Volume


def image_view(ctx: Context, ref: str) -> tuple[str, list[str]]:
    """An image's id, and its layers as overlay options (NotFound)."""
    image = ctx.images.resolve(ref)
    return image.id, ctx.snapshots.view(image.chain_ids)


def populate(ctx: Context, container: Container, chain_ids: Sequence[str]) -> None:
    """Give new volumes what the image has at their places; blocking."""
    names = [point.name for point in container.mounts if point.type == "volume"]
    ctx.volumes.attach(names, container.id)
    try:
        copy_up.populate(ctx.snapshots, chain_ids, container.mounts)
    finally:
        ctx.volumes.detach(names, container.id)


def names(container: Container) -> list[str]:
    """All volumes that it refers to."""
    return [point.name for point in container.mounts if point.type == "volume"]


def anonymous(ctx: Context, container: Container, without: Collection[str] = ()) -> list[Volume]:
    """Those that only this container uses and nobody named; containers ``without`` are taken as gone."""
    own = [p.name for p in container.mounts if p.type == "volume" and not p.named and ctx.volumes.has(p.name)]
    found = [ctx.volumes.get(name) for name in own]
    return [v for v in found if v.anonymous and set(ctx.volumes.used_by(v.name)) <= {container.id, *without}]


async def attach(ctx: Context, container: Container) -> None:
    """At its start: mount what its volumes need, and tell."""
    if ctx.volumes.needs_mount(names(container)):
        await asyncio.to_thread(ctx.volumes.attach, names(container), container.id)
    for point in container.mounts:
        if point.type == "volume":
            access = {
                "destination": point.destination, "propagation": point.propagation,
                "read/write": booleans.write(point.rw),
            }  # fmt: skip
            _event(ctx, container, point, "mount", access)


async def detach(ctx: Context, container: Container) -> None:
    """At its end: unmount what nobody else uses, and tell."""
    if ctx.volumes.needs_mount(names(container)):
        await asyncio.to_thread(ctx.volumes.detach, names(container), container.id)
    for point in container.mounts:
        if point.type == "volume":
            _event(ctx, container, point, "unmount", {})


def _event(ctx: Context, container: Container, point: MountPoint, action: str, more: dict[str, str]) -> None:
    ctx.events.publish("volume", action, point.name, {"container": container.id, "driver": point.driver, **more})


def announce(ctx: Context, container: Container) -> None:
    """Events for the volumes that were made for it."""
    for point in container.mounts:
        if point.type == "volume" and ctx.volumes.get(point.name).created >= container.created:
            ctx.events.publish("volume", "create", point.name, {"driver": point.driver})


async def remove_anonymous(ctx: Context, container: Container) -> None:
    """Remove the volumes that only this container used and nobody named."""
    for volume in anonymous(ctx, container):
        await ctx.volumes.remove(volume.name)
        ctx.events.publish("volume", "destroy", volume.name, {"driver": volume.driver})
