"""Container service: the operations of the API on containers."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.aio.streams import LogOptions
from ketch.engine.containers import startup, update
from ketch.engine.live import waiting
from ketch.engine.model import names
from ketch.engine.model.records import Status
from ketch.engine.spec import bundle
from ketch.engine.stats import processes, top
from ketch.engine.stats.usage import Sampler
from ketch.errors import AlreadyExists, Conflict, InvalidArgument, UnclassifiedArgument
from ketch.failpoints import failpoint
from ketch.runtime.process.io import detach
from ketch.threads import in_own_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from ketch.engine.aio.streams import AttachOptions, ClientStream
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.containers.creation import Creation
    from ketch.engine.containers.details import Details
    from ketch.engine.containers.lifecycle import Lifecycle
    from ketch.engine.containers.removal import Removal
    from ketch.engine.containers.stopping import Stopping
    from ketch.engine.containers.update import Updates
    from ketch.engine.events.bus import EventBus
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.logs.service import LogService
    from ketch.engine.model.records import Container
    from ketch.engine.model.reports import ProcessTable
    from ketch.engine.model.requests import NewContainer, Update
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.model.usage import Sample
    from ketch.engine.networks.link_changes import LinkChanges
    from ketch.engine.networks.sandbox import Sandboxes
    from ketch.engine.runtimes.control import RuntimeControl
    from ketch.engine.stats.samples import Samples
    from ketch.images.store import ImageStore
    from ketch.storage.snapshots.overlay import Snapshots

    Containers = list[Container]

Strings = list[str]


class ContainerService(Struct, frozen=True, eq=False):
    """All containers of the engine."""

    store: ContainerStore
    live: LiveContainers
    events: EventBus
    images: ImageStore
    snapshots: Snapshots
    cgroups: ContainerCgroups
    sandboxes: Sandboxes
    link_changes: LinkChanges
    creation: Creation
    removal: Removal
    life: Lifecycle
    stopping: Stopping
    updates: Updates
    control: RuntimeControl
    log_service: LogService
    samples: Samples
    details: Details

    def get(self, ref: str) -> Container:
        """The container of an id, name or unambiguous prefix (NotFound, InvalidArgument)."""
        return self.store.get(ref)

    def list(self) -> list[Container]:
        """Every container, newest first."""
        return self.store.all()

    def existing(self, ids: Iterable[str]) -> Containers:
        """The containers with these full ids that still exist."""
        known = self.store.ids
        return [known[id_] for id_ in ids if id_ in known]

    async def recorded(self, container: Container) -> None:
        """Wait until a known exit is in the record, and for the second half of a restart.

        Docker shows nobody a container between its end and its start again: Compose takes one that does not run when
        it is told of the end for one that has ended.
        """
        live = self.live.of(container.id)
        await live.recorded()
        if (over := live.restart_over) is not None and not container.state.up:
            await over.wait()

    # -- create and remove -----------------------------------------------------------------------

    async def create(self, wanted: NewContainer) -> tuple[Container, Strings]:
        """A new container from an image that is here (NotFound otherwise); returns it with warnings."""
        return await self.creation.create(wanted)

    async def remove(self, ref: str, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        """Remove a container; a running one only with ``force`` (Conflict), its anonymous volumes with ``volumes``.

        With ``link``, ``ref`` is the name of one (``/web/db``), and only that goes.
        """
        if link:
            await self.link_changes.remove(ref)
            return
        container = self.get(ref)
        live = self.live.of(container.id)
        if live.removing:
            raise Conflict(f"removal of container {ref} is already in progress")
        async with live.removal:  # from here on nobody starts it
            async with live.lock:
                pass  # a start that has begun comes to its end first
            self.removable(ref, force=force)
            if container.state.up:
                with live.defer_removal(), contextlib.suppress(Conflict):
                    await self.stopping.end(container)
            async with live.lock:
                if container.id in self.store.ids:
                    await self.removal.remove(container, volumes)

    def removable(self, ref: str, *, force: bool) -> Container:
        """The container to be removed (Conflict: it runs, and ``force`` is not set)."""
        container = self.get(ref)
        if not force and container.state.up:
            what = f'cannot remove container "{ref}": container is {container.state.status}'
            if container.state.status is Status.PAUSED:
                raise Conflict(f"{what} and must be unpaused first")
            raise Conflict(f"{what}: stop the container before removing or force remove")
        return container

    async def rename(self, ref: str, new_name: str) -> None:
        """Give the container another name."""
        if not new_name:
            raise InvalidArgument("Neither old nor new names may be empty")
        container = self.get(ref)
        old, new_name = container.name, new_name.removeprefix("/")
        if new_name == old:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        try:
            names.check(f"/{new_name}")
            self.store.rename(container, new_name)
        except (InvalidArgument, AlreadyExists) as e:
            raise type(e)(f"Error when allocating new name: {e.message}", hint=e.hint) from e
        failpoint("rename.saved")
        if container.state.running:
            await self.sandboxes.renamed(container)
        self.events.of_container(container, "rename", oldName=f"/{old}")

    # -- life ------------------------------------------------------------------------------------

    async def start(self, ref: str, detach_keys: str = "") -> None:
        """Start a container that does not run."""
        await self.life.start(self.get(ref))

    async def stop(self, ref: str, timeout_s: int | None = None, signal: str | None = None) -> None:
        """Stop a running container."""
        await self.stopping.stop(self.get(ref), timeout_s, signal)

    async def restart(self, ref: str, timeout_s: int | None = None, signal: str | None = None) -> None:
        """Stop and start."""
        await self.life.restart(self.get(ref), timeout_s, signal)

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        """Send a signal to the container's first process."""
        bundle.signal_number(signal)
        await self.stopping.kill(self.get(ref), signal)

    async def pause(self, ref: str) -> None:
        """Freeze every process of the container."""
        await self._freeze(ref, frozen=True)

    async def unpause(self, ref: str) -> None:
        """Thaw a frozen container."""
        await self._freeze(ref, frozen=False)

    async def _freeze(self, ref: str, *, frozen: bool) -> None:
        container = self.get(ref)
        live = self.live.of(container.id)
        async with live.lock, live.freezer:
            if container.state.status is not (Status.RUNNING if frozen else Status.PAUSED):
                if not frozen:
                    raise UnclassifiedArgument(f"Container {container.id} is not paused")
                if container.state.running:
                    raise Conflict(f"Container {container.id} is already paused")
                raise Conflict(f"container {container.id} is not running")
            try:
                await self.control.freeze(container, frozen)
            except FileNotFoundError as e:  # it has ended just now
                raise Conflict(f"container {container.id} is not running") from e
            failpoint("pause.frozen" if frozen else "unpause.thawed")
            container.state.status = Status.PAUSED if frozen else Status.RUNNING
            self.life.frozen(container, frozen)
            self.store.save_best_effort(container, durable=False)
            self.events.of_container(container, "pause" if frozen else "unpause")

    def wait(self, ref: str, condition: str = "") -> waiting.Waiter:
        """Register for an exit (``not-running``, ``next-exit``) or a removal (``removed``)."""
        container = self.get(ref)
        return waiting.register(self.live.of(container.id), container, condition)

    def hold_wait(self, ref: str, fd: int) -> None:
        """Make a client's ``wait`` outlive this process; ``fd`` is its connection and stays the caller's."""
        container = self.get(ref)
        waiting.hold(self.live.of(container.id), container, fd)

    async def update(self, ref: str, wanted: Update) -> tuple[Strings, Container]:
        """Change the configuration, now or at the next start (`pending_changes`); returns warnings and container."""
        update.check(wanted.resources)
        container = self.get(ref)
        return await self.updates.update(container, wanted), container

    # -- streams ---------------------------------------------------------------------------------

    async def check_attach(self, ref: str, detach_keys: str = "") -> Container:
        """Check a request to attach before its connection is upgraded."""
        detach.parse(detach_keys)
        container = self.get(ref)
        if container.state.status is Status.PAUSED:
            raise Conflict(f"container {ref} is paused, unpause the container before attach")
        if container.state.status is Status.RESTARTING:
            raise Conflict(f"container {ref} is restarting, wait until the container is running")
        if container.state.running:
            (await self.live.of(container.id).reach(container)).check_not_stopped()
        return container

    async def attach(self, ref: str, options: AttachOptions, stream: ClientStream) -> None:
        """Attach a client to the container's streams, from its start if it does not run. Consumes ``stream``."""
        container = self.get(ref)
        live = self.live.of(container.id)
        self.events.of_container(container, "attach")
        if live.monitor is not None and options.stream:
            await startup.pass_stream(live.monitor, options, stream, container)
        elif not options.stream or (options.logs and container.state.status is not Status.CREATED):
            await self._replay(container, options, stream)
        else:
            live.early.append((options, stream))

    async def _replay(self, container: Container, options: AttachOptions, stream: ClientStream) -> None:
        """Send the logged output to a client that wants (or can have) no more than that."""
        try:
            if options.logs:
                wanted = LogOptions(stdout=options.stdout, stderr=options.stderr)
                reader = await self.log_service.read(container, wanted, raw=options.raw)
                async with contextlib.aclosing(reader) as chunks:
                    async for chunk in chunks:
                        await stream.write(chunk)
        finally:
            stream.close()

    async def resize(self, ref: str, rows: int, cols: int) -> None:
        """Tell the container's terminal its size in characters."""
        container = self.get(ref)
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")
        await (await self.live.of(container.id).reach(container)).resize(rows, cols)
        self.events.of_container(container, "resize", height=str(rows), width=str(cols))

    async def logs(self, ref: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """The container's output as wire bytes (multiplexed frames, raw for a tty), to be closed."""
        container = self.get(ref)
        self.log_service.check_readable(container)
        return await self.log_service.read(container, options)

    # -- looking ---------------------------------------------------------------------------------

    async def top(self, ref: str, ps_args: str = "") -> ProcessTable:
        """The processes of a running container, as ``ps`` shows them."""
        container = self.get(ref)
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")
        cgroup, first = self.cgroups.of(container), container.state.pid
        table = await in_own_thread(lambda: top.table(processes.of(cgroup, first), ps_args))
        self.events.of_container(container, "top")
        return table

    async def stats_sample(self, ref: str) -> Sample:
        """One reading of the container's counters."""
        return await self.samples.sample(self.get(ref))

    def sampler(self) -> Sampler:
        """A sampler of many containers' resource usage."""
        return Sampler(self.samples)

    async def sizes(self, ref: str) -> tuple[int, int]:
        """(bytes written by the container, bytes of its whole root filesystem)."""
        container = self.get(ref)
        written = await in_own_thread(functools.partial(self.snapshots.usage, container.id))
        return written, written + self.images.resolve(container.image_id).size
