"""The volumes of one container: filled when it is made, told of, and removed with it when nobody named them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ketch.engine import copyup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.context import Context
    from ketch.engine.model import Container, MountPoint


def populate(ctx: Context, container: Container, chain_ids: Sequence[str]) -> None:
    """Give new volumes what the image has at their places; blocking."""
    names = [point.name for point in container.mounts if point.type == "volume"]
    ctx.volumes.attach(names, container.id)
    try:
        copyup.populate(ctx.snapshots, chain_ids, container.mounts)
    finally:
        ctx.volumes.detach(names, container.id)


def names(container: Container) -> list[str]:
    """All volumes that it refers to."""
    return [point.name for point in container.mounts if point.type == "volume"]


def anonymous(ctx: Context, container: Container) -> list[str]:
    """Those that only this container uses and nobody named."""
    return [
        point.name
        for point in container.mounts
        if point.type == "volume" and not point.named and ctx.volumes.has(point.name)
        and ctx.volumes.get(point.name).anonymous and set(ctx.volumes.used_by(point.name)) <= {container.id}
    ]  # fmt: skip


async def attach(ctx: Context, container: Container) -> None:
    """At its start: mount what its volumes need, and tell."""
    if ctx.volumes.needs_mount(names(container)):
        await asyncio.to_thread(ctx.volumes.attach, names(container), container.id)
    for point in container.mounts:
        if point.type == "volume":
            access = {
                "destination": point.destination, "propagation": point.propagation,
                "read/write": "true" if point.rw else "false",
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


def remove_anonymous(ctx: Context, container: Container) -> None:
    """Remove the volumes that only this container used and nobody named."""
    for name in anonymous(ctx, container):
        volume = ctx.volumes.get(name)
        ctx.volumes.remove(name)
        ctx.events.publish("volume", "destroy", name, {"driver": volume.driver})
