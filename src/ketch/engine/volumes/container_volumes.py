"""Volumes and images that a container mounts: population at its creation, removal of anonymous ones with it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.aio import snapshot_work
from ketch.engine.volumes import copy_up, mount_plan, propagation
from ketch.engine.volumes.mount_plan import MountPlanner
from ketch.engine.volumes.mount_spec import of_mount
from ketch.notation import booleans
from ketch.threads import in_own_thread

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from ketch.engine.events.bus import EventBus
    from ketch.engine.model.records import Container, HostConfig, MountPoint
    from ketch.engine.model.volume import Volume
    from ketch.engine.volumes.store import VolumeStore
    from ketch.images.store import ImageStore
    from ketch.storage.interruption import Interruption
    from ketch.storage.snapshots.overlay import Snapshots


class ContainerVolumes(Struct, frozen=True, eq=False):
    """Volumes and images that containers mount."""

    volumes: VolumeStore
    images: ImageStore
    snapshots: Snapshots
    events: EventBus
    interruption: Interruption

    def image_view(self, ref: str) -> tuple[str, list[str]]:
        """An image's id, and its layers as overlay options (NotFound)."""
        image = self.images.resolve(ref)
        return image.id, self.snapshots.view(image.chain_ids)

    async def make_image_trees(self, host: HostConfig) -> None:
        """Make the trees of images to be mounted, before they are planned: the vfs driver copies files for them."""
        for mount in host.mounts or ():
            if mount.type == "image" and mount.source:
                of_mount(mount)  # complaints about the mount go before those about its image
                await snapshot_work.run_to_end(self.snapshots, self.image_view, mount.source)

    def planner(self) -> MountPlanner:
        """The planner of mounts of new containers."""
        return MountPlanner(self.volumes, self.image_view, self.volumes.data_root)

    def populate(self, container: Container, chain_ids: Sequence[str], inherited: Sequence[MountPoint] = ()) -> None:
        """Copy the image's files to new volumes, but ``inherited`` ones; blocking.

        Unavailable when the daemon ends meanwhile.
        """
        points = [point for point in container.mounts if not any(point is other for other in inherited)]

        @contextlib.contextmanager
        def mounted(name: str) -> Iterator[None]:
            self.volumes.attach([name], container.id)
            try:
                yield
            finally:
                self.volumes.detach([name], container.id)

        copy_up.populate(self.snapshots, chain_ids, points, mounted, self.interruption.check)

    def anonymous(self, container: Container, without: Collection[str] = ()) -> list[Volume]:
        """The anonymous volumes that only this container uses; containers ``without`` are ignored."""
        own = [p.name for p in container.mounts if p.type == "volume" and not p.named and self.volumes.has(p.name)]
        found = [self.volumes.get(name) for name in own]
        return [v for v in found if v.anonymous and set(self.volumes.used_by(v.name)) <= {container.id, *without}]

    def starting(self, container: Container) -> contextlib.AbstractContextManager[None]:
        """Have nobody restore its volumes while a container starts (Conflict: somebody does)."""
        return self.volumes.starting(names(container))

    async def attach(self, container: Container) -> None:
        """Mount a starting container's volumes that need it, and publish events."""
        self.volumes.check_directories(names(container))
        if self.volumes.needs_mount(names(container)):
            await asyncio.to_thread(self.volumes.attach, names(container), container.id)
        if any(point.type == "bind" or point.spec is not None for point in container.mounts):
            await in_own_thread(lambda: _prepare(container.mounts))  # a server of files may not answer
        for point in container.mounts:
            if point.type == "volume":
                access = {
                    "destination": point.destination,
                    "propagation": point.propagation,
                    "read/write": booleans.write(point.rw),
                }
                self._event(container, point, "mount", access)

    async def detach(self, container: Container) -> None:
        """Unmount an ended container's volumes that are not used otherwise, and publish events."""
        if self.volumes.needs_mount(names(container)):
            await asyncio.to_thread(self.volumes.detach, names(container), container.id)
        for point in container.mounts:
            if point.type == "volume":
                self._event(container, point, "unmount", {})

    def _event(self, container: Container, point: MountPoint, action: str, more: dict[str, str]) -> None:
        self.events.publish("volume", action, point.name, {"container": container.id, "driver": point.driver, **more})

    def announce(self, container: Container) -> None:
        """Publish events for the volumes that were made for the container."""
        for point in container.mounts:
            if point.type == "volume" and self.volumes.get(point.name).created >= container.created:
                self.events.publish("volume", "create", point.name, {"driver": point.driver})

    def announce_new(self, container: Container, known: Collection[str]) -> None:
        """Publish events for those of its volumes that are not among the ``known`` ones."""
        for point in container.mounts:
            if point.type == "volume" and point.name not in known:
                self.events.publish("volume", "create", point.name, {"driver": point.driver})

    async def remove_new(self, container: Container, known: Collection[str]) -> None:
        """Remove those of its volumes that are not among the ``known`` ones."""
        for point in container.mounts:
            if point.type == "volume" and point.name not in known and self.volumes.has(point.name):
                await self._remove(self.volumes.get(point.name))

    async def _remove(self, volume: Volume) -> None:
        await self.volumes.remove(volume.name)
        self.events.publish("volume", "destroy", volume.name, {"driver": volume.driver})

    async def remove_anonymous(self, container: Container) -> None:
        """Remove the anonymous volumes that only this container used."""
        for volume in self.anonymous(container):
            await self._remove(volume)


def _prepare(points: Sequence[MountPoint]) -> None:
    """Check the mounts of a container that starts, and make what binds lack; blocking."""
    mount_plan.check_at_start(points)
    mount_plan.make_sources(points)
    propagation.check(points)


def names(container: Container) -> list[str]:
    """The names of all volumes that the container refers to."""
    return [point.name for point in container.mounts if point.type == "volume"]
