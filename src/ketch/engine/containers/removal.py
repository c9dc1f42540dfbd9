"""Removal of containers that do not run: the row, then everything that belongs to it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ketch.engine.model import pending
from ketch.engine.stats.counters import timed
from ketch.errors import KetchError
from ketch.failpoints import failpoint

if TYPE_CHECKING:
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.containers.orphans import Orphans
    from ketch.engine.events.bus import EventBus
    from ketch.engine.files.directories import ContainerDirectories
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.networks.link_changes import LinkChanges
    from ketch.engine.stats.counters import Counters
    from ketch.engine.volumes.container_volumes import ContainerVolumes

log = logging.getLogger(__name__)


class Removal(Struct, frozen=True, eq=False):
    """Removes containers; the caller holds the container's lock."""

    store: ContainerStore
    live: LiveContainers
    events: EventBus
    cgroups: ContainerCgroups
    orphans: Orphans
    link_changes: LinkChanges
    container_volumes: ContainerVolumes
    directories: ContainerDirectories
    counters: Counters

    async def remove_ended(self, container: Container) -> None:
        """Remove a ``--rm`` container after its end; a failure is logged, and the container stays."""
        try:
            await self.remove(container, volumes=True)
        except KetchError as e:
            log.error("%s", e.message)
            self.store.save_best_effort(container)

    @timed("delete")
    async def remove(self, container: Container, volumes: bool) -> None:
        """Remove a container, and with ``volumes`` its anonymous volumes (KetchError: a process of it lives)."""
        live = self.live.of(container.id)
        if live.prepared is not None:  # it never ran
            prepared, live.prepared = live.prepared, None
            await prepared.undo.aclose()
        await self.orphans.clear_for_removal(container)
        live.close_early()
        live.release_held()
        # Once the row is gone the name is free and the container does not come back; its files go
        # behind the caller's back, and those that a crash leaves are found at the next start.
        whole = msgspec.structs.replace(container, mounts=pending.mount_points(container))
        anonymous = [volume.name for volume in self.container_volumes.anonymous(whole)] if volumes else []
        self.store.remove(container, also=self.container_volumes.volumes.mark_for_removal(anonymous))
        failpoint("remove.row-deleted")
        self.link_changes.removed(container)
        self.live.forget(container.id)
        self.cgroups.forget(container.id)
        try:
            if volumes:
                await self.container_volumes.remove_anonymous(whole)
        finally:  # whatever becomes of them, the container is gone, and who waits for that is told
            self.events.of_container(container, "destroy")
            live.resolve(live.removed_waiters, container.state.exit_code)
            live.resolve(live.exit_waiters, container.state.exit_code)
            self.directories.remove_later(container.id)
        if not container.is_ephemeral:
            await self.store.flush()
