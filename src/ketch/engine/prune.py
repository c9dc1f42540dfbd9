"""Removal of unused objects: ``prune`` of containers, networks, volumes, images; dry runs of removals.

What cannot be removed keeps nothing else: all others are, and then the first error is raised.

Every function decides and, unless it is a dry run, acts.  ``without`` are ids of containers that a dry run takes as
gone already: that is how several of them in a row say together what the real ones would do together.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine import os_errors
from ketch.engine.model.records import Status
from ketch.engine.model.reports import Pruned, Removed, check_removed
from ketch.errors import Conflict, KetchError, NotFound
from ketch.images.removal import DryRun
from ketch.storage.sizes import size_on_disk
from ketch.threads import in_own_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ketch.engine.containers.service import ContainerService
    from ketch.engine.events.bus import EventBus
    from ketch.engine.images.pull import PullService
    from ketch.engine.images.service import ImageService
    from ketch.engine.networks.service import NetworkService
    from ketch.engine.volumes.container_volumes import ContainerVolumes
    from ketch.engine.volumes.store import VolumeStore
    from ketch.images.store import ImageStore

    Matches = Callable[[int, dict[str, str] | None], bool]  # (created in ns, labels)

_DOWN = (Status.CREATED, Status.EXITED, Status.DEAD)
Objects = list[Removed]
Rows = list[dict[str, str]]


async def _size_on_disk(directory: str) -> int:
    return await in_own_thread(functools.partial(size_on_disk, directory))


@contextlib.contextmanager
def _collected(failed: list[KetchError]) -> Iterator[None]:
    """Put an error on the list, to be raised when everything else is done."""
    try:
        yield
    except (NotFound, Conflict):
        raise
    except (KetchError, OSError) as e:
        failed.append(os_errors.explained(e, "prune") if isinstance(e, OSError) else e)


class PruneService(Struct, frozen=True, eq=False):
    """The operation ``prune`` on each type of object."""

    container_service: ContainerService
    container_volumes: ContainerVolumes
    network_service: NetworkService
    volume_store: VolumeStore
    image_service: ImageService
    image_store: ImageStore
    pulls: PullService
    events: EventBus

    async def container(self, ref: str, *, force: bool, volumes: bool, without: Collection[str]) -> Pruned:
        """The dry run of a container's removal, with its errors."""
        container = self.container_service.removable(ref, force=force)
        written = (await self.container_service.sizes(container.id))[0]
        found = [Removed(container.id, container.name, written)]
        anonymous = self.container_volumes.anonymous(container, {container.id, *without}) if volumes else []
        lost = [Removed(v.name, v.name, await _size_on_disk(v.mountpoint)) for v in anonymous]
        return Pruned(found, sum(o.size for o in (*found, *lost)), volumes=lost)

    async def containers(self, matches: Matches, *, dry_run: bool) -> Pruned:
        """Remove every container that does not run."""
        found: Objects = []
        failed: list[KetchError] = []
        for container in self.container_service.list():
            if container.state.status not in _DOWN or not matches(container.created, container.config.labels):
                continue
            written = (await self.container_service.sizes(container.id))[0]
            with contextlib.suppress(NotFound, Conflict), _collected(failed):  # somebody has removed it, or started it
                if not dry_run:
                    await self.container_service.remove(container.id)
                found.append(Removed(container.id, container.name, written))
        space = sum(removed.size for removed in found)
        if not dry_run:
            self.events.publish("container", "prune", "", {"reclaimed": str(space)})
        check_removed("containers", failed)
        return Pruned(found, space)

    async def networks(self, matches: Matches, *, dry_run: bool, without: Collection[str]) -> Pruned:
        """Remove the networks that no container refers to."""
        removed = await self.network_service.prune(
            lambda record: not matches(record.created, record.labels), dry_run=dry_run, without=without
        )
        return Pruned([Removed(record.id, record.name) for record in removed])

    async def volumes(self, matches: Matches, *, everything: bool, dry_run: bool, without: Collection[str]) -> Pruned:
        """Remove the volumes that no container uses: the anonymous ones, or ``everything``."""
        found: Objects = []
        failed: list[KetchError] = []
        for volume in self.volume_store.list():
            used = set(self.volume_store.used_by(volume.name)) - set(without)
            if used or not (volume.anonymous or everything) or not matches(volume.created, volume.labels):
                continue
            with contextlib.suppress(NotFound, Conflict), _collected(failed):  # somebody has removed it, or uses it now
                size = await _size_on_disk(volume.mountpoint)
                if not dry_run:
                    await self.volume_store.remove(volume.name)
                    self.events.publish("volume", "destroy", volume.name, {"driver": volume.driver})
                found.append(Removed(volume.name, volume.name, size))
        space = sum(removed.size for removed in found)
        if not dry_run:
            self.events.publish("volume", "prune", "", {"reclaimed": str(space)})
        check_removed("volumes", failed)
        return Pruned(found, space)

    async def images(self, matches: Matches, *, dangling: bool, dry_run: bool, without: Collection[str]) -> Pruned:
        """Remove the images that no container uses: those without a name, or (not ``dangling``) all of them."""
        found: Objects = []
        rows: Rows = []
        tried = DryRun() if dry_run else None
        sizes = self.image_store.layer_sizes()
        for image in self.image_service.list():
            config = image.config.config
            users = [user for user, _ in self.image_service.containers_of(image.id) if user not in without]
            if (dangling and image.repo_tags) or users or not matches(image.created, config.labels if config else None):
                continue
            tags, done = list(image.repo_tags), len(rows)
            for name in tags or [image.id]:
                try:
                    rows += await self.image_service.remove(name, dry_run=tried, without=without)
                except (NotFound, Conflict):  # somebody else has removed it, or uses it now
                    continue
            freed = sum(sizes.get(row.get("Deleted", ""), 0) for row in rows[done:])
            found.append(Removed(image.id, ", ".join(tags) or "<none>", freed))
        space = sum(removed.size for removed in found)
        if not dry_run:
            space += await asyncio.to_thread(self.pulls.sweep)
            self.events.publish("image", "prune", "", {"reclaimed": str(space)})
        return Pruned(found, space, rows=rows)
