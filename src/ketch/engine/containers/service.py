"""The verbs on containers that the API offers; state changes are delegated to ``lifecycle``."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec

from ketch import faults
from ketch.engine.aio.streams import LogOptions
from ketch.engine.aio.transfer import in_own_thread
from ketch.engine.containers import (
    lifecycle,
    orphans,
    pending_changes,
    shared_namespaces,
    snapshot_work,
    update,
    validate,
    waiting,
)
from ketch.engine.containers.directories import remove_files
from ketch.engine.logs import options as log_options
from ketch.engine.logs import service
from ketch.engine.model import merge, names
from ketch.engine.model.records import Container, MountPoint, Status
from ketch.engine.networks import service as network_service
from ketch.engine.spec import bundle, limits, secrets
from ketch.engine.stats import samples, top
from ketch.engine.volumes import container_volumes, idmaps, mount_plan
from ketch.errors import Conflict, InvalidArgument, KetchError, NotModified
from ketch.images.single_flight import run_uncancellable
from ketch.oci.config import RunConfig
from ketch.runtime.process.io import detach
from ketch.storage.snapshots import quota
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.engine.aio.streams import AttachOptions, ClientStream
    from ketch.engine.model.records import ContainerConfig, HostConfig, NetworkingConfig
    from ketch.engine.parts import Context
    from ketch.images.model import Image

log = logging.getLogger(__name__)
Strings = list[str]
Mounts = list[MountPoint]


class ContainerService:
    """All containers of the engine."""

    def __init__(self, context: Context, life: lifecycle.Lifecycle) -> None:
        self._ctx = context
        self._life = life

    def get(self, ref: str) -> Container:
        """By id, name or unambiguous prefix (NotFound, InvalidArgument)."""
        return self._ctx.store.get(ref)

    def list(self) -> list[Container]:
        """Every container, newest first."""
        return self._ctx.store.all()

    # -- create and remove -----------------------------------------------------------------------

    async def create(
        self,
        config: ContainerConfig,
        host: HostConfig,
        networking: NetworkingConfig | None = None,
        name: str | None = None,
        platform: str | None = None,
    ) -> tuple[Container, Strings]:
        """A new container from an image that is here (NotFound otherwise); returns it with warnings."""
        ctx = self._ctx
        if name:
            name = names.check(name)
            ctx.store.check_free(name)
        log_options.settle(host.log_config, ctx.log_default)
        warnings = validate.check(config, host)
        secrets.check(host)
        limits.settle(host)
        shared_namespaces.resolve(host, ctx.store)
        image = ctx.images.resolve(config.image, platform or "")
        merged = merge.merge(config, image.config.config or RunConfig())
        path, args = merge.command_of(merged)
        container = Container(
            id=names.new_id(),
            name=name or names.generate(ctx.store.names),
            created=time.time_ns(),
            image_id=image.id,
            image_ref=config.image,
            config=merged,
            host=host,
            path=path,
            args=args,
        )
        if not host.network_mode or host.network_mode == "default":
            host.network_mode = "bridge"
        container.networks, container.desired_macs = network_service.settings_of(
            host.network, networking, ctx.network, merged.mac_address
        )
        ctx.links.resolve(container)
        if not merged.mac_address:
            merged.mac_address = container.desired_macs.get(next(iter(container.networks), ""), "")
        # Every complaint about values belongs here and not to the start.
        bundle.build(container, "/", "/", lambda _ref, _kind: "")
        size = quota.parse(host.storage_opt)
        ctx.snapshots.check_limit(size)
        with ctx.images.pinned(image):
            await self._make(container, image, size)
        faults.point("create.row-written")
        container_volumes.announce(ctx, container)
        ctx.events.of_container(container, "create")
        await ctx.store.settled()
        return container, warnings

    async def _make(self, container: Container, image: Image, size: int) -> None:
        """Volumes, files and row, or nothing of them."""
        ctx, config, host = self._ctx, container.config, container.host
        async with AsyncUndo() as undo:
            undo.push_async_callback(container_volumes.remove_anonymous, ctx, container)
            if image.chain_ids:
                await snapshot_work.whole(ctx.snapshots, ctx.snapshots.view, image.chain_ids)
            mount_plan.plan(
                config, host, ctx.volumes, container.mounts, self._inherited(host),
                functools.partial(container_volumes.image_view, ctx), container.id,
            )  # fmt: skip
            faults.point("create.volumes-made")
            await snapshot_work.whole(
                ctx.snapshots, idmaps.resolve, ctx.snapshots, image.chain_ids, config.user, container.mounts
            )
            if any(point.type == "volume" for point in container.mounts):
                await run_uncancellable(container_volumes.populate, ctx, container, image.chain_ids)
            undo.push_async_callback(in_own_thread, functools.partial(remove_files, ctx, container.id))
            await snapshot_work.whole(ctx.snapshots, ctx.snapshots.prepare, container.id, image.chain_ids, size)
            faults.point("create.snapshot-made")
            ctx.store.add(container, also=ctx.volumes.mark_as_made(container_volumes.names(container)))
            undo.pop_all()

    def _inherited(self, host: HostConfig) -> Mounts:
        """The mounts that ``--volumes-from CONTAINER[:ro|rw]`` brings."""
        result: Mounts = []
        for spec in host.volumes_from or ():
            ref, _, mode = spec.partition(":")
            if mode not in ("", "ro", "rw", "z", "Z"):
                raise InvalidArgument(f"invalid mode: {mode}", hint="use --volumes-from CONTAINER[:ro]")
            if not self._ctx.store.has(ref):
                raise InvalidArgument(f"No such container: {ref}", hint="it is named by --volumes-from")
            for point in self._ctx.store.get(ref).mounts:
                result.append(msgspec.structs.replace(point, rw=point.rw and mode != "ro"))
        return result

    async def remove(self, ref: str, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        """Remove a container; a running one only with ``force`` (Conflict), its anonymous volumes with ``volumes``.

        With ``link``, ``ref`` is the name of one (``/web/db``), and only that goes.
        """
        if link:
            await self._ctx.links.remove(ref)
            return
        container = self.get(ref)
        live = self._ctx.live.of(container.id)
        if live.removing:
            raise Conflict(f"removal of container {ref} is already in progress")
        live.removing = True  # from here on nobody starts it
        try:
            async with live.lock:
                pass  # a start that has begun comes to its end first
            self.removable(ref, force=force)
            if container.state.up:
                with live.stays(), contextlib.suppress(NotModified):
                    await self._life.stop(container, 0, "KILL")
            async with live.lock:
                if container.id in self._ctx.store.ids:
                    await self._remove_locked(container, volumes)
        finally:
            live.removing = False

    def removable(self, ref: str, *, force: bool) -> Container:
        """A container that may be removed (Conflict: it runs, and that needs ``force``)."""
        container = self.get(ref)
        if not force and container.state.up:
            first = "unpause and then " if container.state.status is Status.PAUSED else ""
            raise Conflict(
                f'cannot remove container "/{container.name}": container is {container.state.status}: '
                f"{first}stop the container before removing or force remove"
            )
        return container

    async def remove_ended(self, container: Container) -> None:
        """``--rm``: called by the lifecycle with the lock held."""
        try:
            await self._remove_locked(container, volumes=True)
        except KetchError as e:
            log.error("%s", e.message)
            self._ctx.store.keep(container)

    async def _remove_locked(self, container: Container, volumes: bool) -> None:
        ctx, live = self._ctx, self._ctx.live.of(container.id)
        await orphans.make_sure(ctx, container)
        for _, stream in live.early:
            stream.close()
        live.release_held()
        # Once the row is gone the name is free and the container does not come back; its files go
        # behind the caller's back, and those that a crash leaves are found at the next start.
        whole = msgspec.structs.replace(container, mounts=pending_changes.mount_points(container))
        anonymous = [volume.name for volume in container_volumes.anonymous(ctx, whole)] if volumes else []
        ctx.store.remove(container, also=ctx.volumes.mark_for_removal(anonymous))
        faults.point("remove.row-deleted")
        ctx.links.forget(container)
        ctx.live.forget(container.id)
        ctx.cgroups.forget(container.id)
        if volumes:
            await container_volumes.remove_anonymous(ctx, whole)
        ctx.events.of_container(container, "destroy")
        live.resolve(live.removed_waiters, container.state.exit_code)
        live.resolve(live.exit_waiters, container.state.exit_code)
        ctx.remover.later(functools.partial(remove_files, ctx, container.id))
        await ctx.store.settled()

    async def rename(self, ref: str, new_name: str) -> None:
        """Give the container another name."""
        if not new_name:
            raise InvalidArgument("Neither old nor new names may be empty")
        container = self.get(ref)
        new_name = names.check(new_name)
        old = container.name
        if new_name == old:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        self._ctx.store.rename(container, new_name)
        faults.point("rename.saved")
        if container.state.running:
            await self._ctx.sandboxes.renamed(container)
        self._ctx.events.of_container(container, "rename", oldName=f"/{old}")

    # -- life ------------------------------------------------------------------------------------

    async def start(self, ref: str, detach_keys: str = "") -> None:
        """Start a container that does not run."""
        await self._life.start(self.get(ref))

    async def stop(self, ref: str, timeout_s: int | None = None, signal: str | None = None) -> None:
        """Stop a running container."""
        await self._life.stop(self.get(ref), timeout_s, signal)

    async def restart(self, ref: str, timeout_s: int | None = None, signal: str | None = None) -> None:
        """Stop and start."""
        await self._life.restart(self.get(ref), timeout_s, signal)

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        """Send a signal to the container's first process."""
        bundle.signal_number(signal)
        await self._life.kill(self.get(ref), signal)

    async def pause(self, ref: str) -> None:
        """Freeze every process of the container."""
        await self._freeze(ref, frozen=True)

    async def unpause(self, ref: str) -> None:
        """Let a frozen container go on."""
        await self._freeze(ref, frozen=False)

    async def _freeze(self, ref: str, *, frozen: bool) -> None:
        container = self.get(ref)
        async with self._ctx.live.of(container.id).lock:
            if container.state.status is not (Status.RUNNING if frozen else Status.PAUSED):
                words = "not paused" if not frozen else "already paused" if container.state.running else "not running"
                raise Conflict(f"container {container.id} is {words}")
            try:
                self._ctx.cgroups.of(container).freeze(frozen)
            except FileNotFoundError as e:  # it has ended just now
                raise Conflict(f"container {container.id} is not running") from e
            faults.point("pause.frozen" if frozen else "unpause.thawed")
            container.state.status = Status.PAUSED if frozen else Status.RUNNING
            health = self._life.listeners.health
            (health.end if frozen else health.resume)(container)
            self._ctx.store.keep(container, durable=False)
            self._ctx.events.of_container(container, "pause" if frozen else "unpause")

    def wait(self, ref: str, condition: str = "") -> waiting.Waiter:
        """Register for an exit (``not-running``, ``next-exit``) or a removal (``removed``)."""
        return waiting.register(self._ctx, self.get(ref), condition)

    def hold_wait(self, ref: str, fd: int) -> None:
        """Make a client's ``wait`` outlive this process; ``fd`` is its connection and stays the caller's."""
        waiting.hold(self._ctx, self.get(ref), fd)

    async def update(self, ref: str, wanted: update.Request) -> tuple[Strings, Container]:
        """Another configuration, now or at the next start (`pending_changes`); returns warnings, and the container."""
        update.check(wanted)
        container = self.get(ref)
        return await update.update(self._ctx, container, wanted), container

    # -- streams ---------------------------------------------------------------------------------

    async def check_attach(self, ref: str, detach_keys: str = "") -> Container:
        """What can be refused before the connection is upgraded."""
        detach.parse(detach_keys)
        container = self.get(ref)
        if container.state.status is Status.PAUSED:
            raise Conflict(f"container {container.id} is paused, unpause the container before attach")
        if container.state.status is Status.RESTARTING:
            raise Conflict(f"container {container.id} is restarting, wait until the container is running")
        if container.state.running:
            (await self._ctx.live.of(container.id).reach(container)).check_not_stopped()
        return container

    async def attach(self, ref: str, options: AttachOptions, stream: ClientStream) -> None:
        """Join a client to the container's streams; before the start it waits for it. Consumes ``stream``."""
        container = self.get(ref)
        live = self._ctx.live.of(container.id)
        self._ctx.events.of_container(container, "attach")
        if live.monitor is not None and options.stream:
            await self._life.hand_over(live.monitor, options, stream, container)
        elif not options.stream or (options.logs and container.state.status is not Status.CREATED):
            await self._replay(container, options, stream)
        else:
            live.early.append((options, stream))

    async def _replay(self, container: Container, options: AttachOptions, stream: ClientStream) -> None:
        """What was logged, to a client that does not want (or cannot have) what comes."""
        try:
            if options.logs:
                wanted = LogOptions(stdout=options.stdout, stderr=options.stderr)
                async for chunk in service.read(self._ctx, container, wanted, raw=options.raw):
                    await stream.write(chunk)
        finally:
            stream.close()

    async def resize(self, ref: str, rows: int, cols: int) -> None:
        """Tell the container's terminal its size in characters."""
        container = self.get(ref)
        if not container.state.running:
            raise Conflict(f"cannot resize: container {container.id} is not running")
        await (await self._ctx.live.of(container.id).reach(container)).resize(rows, cols)

    def logs(self, ref: str, options: LogOptions) -> AsyncIterator[bytes]:
        """The container's output as wire bytes (multiplexed frames, raw for a tty)."""
        container = self.get(ref)
        service.check_readable(self._ctx, container)
        return service.read(self._ctx, container, options)

    # -- looking ---------------------------------------------------------------------------------

    async def top(self, ref: str, ps_args: str = "") -> dict[str, Any]:
        """The processes of a running container, as ``ps`` shows them."""
        container = self.get(ref)
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")
        cgroups = self._ctx.cgroups.of(container)
        return await in_own_thread(lambda: top.table(cgroups.pids(), ps_args))

    async def stats_sample(self, ref: str) -> dict[str, Any]:
        """One reading of the container's counters (raw; see ``engine.stats``)."""
        return await samples.sample(self._ctx, self.get(ref))

    async def sizes(self, ref: str) -> tuple[int, int]:
        """(bytes written by the container, bytes of its whole root filesystem)."""
        container = self.get(ref)
        written = await in_own_thread(functools.partial(self._ctx.snapshots.usage, container.id))
        return written, written + self._ctx.images.resolve(container.image_id).size
