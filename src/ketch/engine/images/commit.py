"""``commit``: a container's changes become an image.

A container that runs is paused meanwhile, unless the caller does not want that: what it was writing would be half in
the image.  It goes on whatever happens; should this daemon die in between, the next one lets it go on (``MARK``).
One that does not run is locked, so that nobody starts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ketch.build.dockerfile import changes as change
from ketch.engine.files import upper_dir
from ketch.engine.model import merge
from ketch.engine.model.records import Status
from ketch.engine.stats.counters import timed
from ketch.errors import Conflict, InvalidArgument, NotFound
from ketch.images import commit as images
from ketch.oci import reference
from ketch.oci.config import History, RunConfig
from ketch.storage.snapshots import diff, layer_copy
from ketch.threads import in_own_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.containers.service import ContainerService
    from ketch.engine.events.bus import EventBus
    from ketch.engine.files.container_view import ContainerViews
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.model.records import Container, ContainerConfig
    from ketch.engine.model.requests import CommitOptions
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.paths import ContainerPaths
    from ketch.engine.stats.counters import Counters
    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.storage.layers.tars import TarFacts
    from ketch.storage.snapshots.overlay import Snapshots

MARK = "paused-for-commit"


class CommitService(Struct, frozen=True, eq=False):
    """Images from containers."""

    store: ContainerStore
    live: LiveContainers
    paths: ContainerPaths
    images: ImageStore
    snapshots: Snapshots
    views: ContainerViews
    events: EventBus
    tasks: BackgroundTasks
    containers: ContainerService
    counters: Counters

    @timed("commit")
    async def commit(self, ref: str, options: CommitOptions) -> str:
        """Make the image and return its id (NotFound, Conflict, InvalidArgument)."""
        if not ref:
            raise InvalidArgument('invalid name or ID supplied: ""')
        name = images.check_name(options.repo, options.tag)
        container = self.store.get(ref)
        self.views.check(container)
        config = image_config(container, options)
        async with AsyncExitStack() as stack:
            await self._hold_still(container, options.pause, stack)
            work = self.tasks.start(in_own_thread(lambda: self._make(container, config, name, options)))
            try:
                image = await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])
                raise
            shown = reference.parse(name).familiar if name else ""
            self.events.of_image(image, "create")
            if name:
                self.events.of_image(image, "tag", shown)
            self.events.of_container(container, "commit", comment=options.comment, imageID=image.id, imageRef=shown)
        return image.id

    async def _hold_still(self, container: Container, pause: bool, stack: AsyncExitStack) -> None:
        live = self.live.of(container.id)
        if not container.state.running:
            await live.lock.acquire()
            if not container.state.running:
                stack.callback(live.lock.release)
                self.views.check(container)
                return
            live.lock.release()
        if not pause or container.state.status is Status.PAUSED:
            return
        mark = os.path.join(self.paths.run_dir(container.id), MARK)
        with contextlib.suppress(FileNotFoundError):  # it has just ended, and so there is nothing to pause
            os.close(os.open(mark, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        stack.callback(_remove, mark)
        with contextlib.suppress(Conflict):  # it has ended meanwhile
            await self.containers.pause(container.id)
            stack.push_async_callback(self._go_on, container)

    async def _go_on(self, container: Container) -> None:
        with contextlib.suppress(Conflict, NotFound):  # it was killed, removed or unpaused by somebody else
            await self.containers.unpause(container.id)

    async def resume(self) -> None:
        """Resume, at the daemon's start, the containers that the last one had paused for a commit."""
        for container in self.store.all():
            mark = os.path.join(self.paths.run_dir(container.id), MARK)
            if os.path.exists(mark):
                if container.state.status is Status.PAUSED:
                    await self.containers.unpause(container.id)
                _remove(mark)

    def _make(self, container: Container, config: RunConfig, name: str, options: CommitOptions) -> Image:
        parent = self.images.resolve(container.image_id)
        cmd = container.config.cmd or []
        with upper_dir.opened(self.images, self.snapshots, container) as (upper_fd, lower_fd):
            return images.commit(
                self.images,
                parent,
                config,
                _filler(upper_fd, lower_fd, container),
                name=name,
                step=History(
                    created_by=(cmd if isinstance(cmd, str) else " ".join(cmd)) or None,
                    author=options.author or None,
                    comment=options.comment or None,
                ),
            )


def image_config(container: Container, options: CommitOptions) -> RunConfig:
    """The new image's configuration: the given one or the container's, with ``--change`` applied.

    What they leave open, or empty, is filled from the container's, as ``create`` does it from an image's.
    """
    own = _run_config(container.config)
    config = _run_config(options.config or container.config)
    change.apply(config, options.changes)
    if options.config is None and not options.changes:
        return config
    given = msgspec.convert(msgspec.to_builtins(config), type(container.config))
    return _run_config(merge.merge(given, own))


def _run_config(config: ContainerConfig) -> RunConfig:
    names = {f.encode_name for f in msgspec.structs.fields(RunConfig)}
    facts = msgspec.to_builtins(config)
    for name in ("Cmd", "Entrypoint"):
        if isinstance(facts.get(name), str):
            facts[name] = [facts[name]]
    if facts.get("Healthcheck"):
        facts["Healthcheck"] = {name: value for name, value in facts["Healthcheck"].items() if value}
    return msgspec.convert({k: v for k, v in facts.items() if k in names and v}, RunConfig)


def _filler(upper_fd: int, lower_fd: int, container: Container) -> Callable[[str], TarFacts | None] | None:
    """The function that copies the changes to a directory; None when the container changed nothing."""
    if next(diff.found(upper_fd, lower_fd), None) is None:
        return None
    places = diff.places_made(upper_fd, lower_fd)
    was_still = _is_still(container)

    def fill(directory: str) -> TarFacts | None:
        found = layer_copy.copy(upper_fd, directory, places)
        return found if was_still and _is_still(container) else None

    return fill


def _is_still(container: Container) -> bool:
    return not container.state.running or container.state.status is Status.PAUSED


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
