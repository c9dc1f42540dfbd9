"""Startup of a container: from its record to a running program; a failed one is undone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.live.containers import PreparedStart
from ketch.engine.monitors.monitor_client import StreamOptions
from ketch.errors import KetchError
from ketch.failpoints import failpoint
from ketch.network.files import check_name_servers
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.aio.streams import AttachOptions, ClientStream
    from ketch.engine.containers.orphans import Orphans
    from ketch.engine.containers.start_message import StartMessages
    from ketch.engine.live.containers import Live
    from ketch.engine.model.records import Container
    from ketch.engine.monitors.launcher import Launcher
    from ketch.engine.monitors.monitor_client import MonitorClient
    from ketch.engine.networks.legacy_links import Links
    from ketch.engine.networks.sandbox import Sandboxes
    from ketch.engine.volumes.container_volumes import ContainerVolumes

log = logging.getLogger(__name__)


class Started(Struct, frozen=True):
    """The result of a start: ``pid`` of the program, ``started_at`` in ns."""

    monitor: MonitorClient
    pid: int
    started_at: int


class Startup(Struct, frozen=True, eq=False):
    """Starts containers; the caller holds the container's lock."""

    launcher: Launcher
    messages: StartMessages
    sandboxes: Sandboxes
    container_volumes: ContainerVolumes
    links: Links
    orphans: Orphans

    async def run(self, container: Container, live: Live, asked: Callable[[], None]) -> Started:
        """Start the container's program, or leave nothing of it (any KetchError, OSError).

        ``asked`` is called when the launcher has been asked, and there is nothing to do but to wait.
        """
        async with AsyncUndo() as undo:
            undo.callback(live.close_early)
            with self.container_volumes.starting(container):
                started = await self._run(container, live, asked)
            undo.pop_all()
        return started

    async def _run(self, container: Container, live: Live, asked: Callable[[], None]) -> Started:
        async with AsyncUndo() as undo:
            prepared, live.prepared = live.prepared, None
            if prepared is None:
                prepared = await self.prepare(container, asked)
            else:
                asked()
            undo.push_async_exit(prepared.undo)
            self.sandboxes.tell_unwired(container, "connect")
            undo.callback(self.sandboxes.tell_unwired, container, "disconnect")
            await self._connect(container, live, prepared.monitor)
            failpoint("start.wired")
            started_at = await prepared.monitor.start(prepared.args)
            failpoint("start.running")
            undo.pop_all()
        return Started(prepared.monitor, prepared.pid, started_at)

    async def prepare(self, container: Container, asked: Callable[[], None] | None = None) -> PreparedStart:
        """Do all of a start but the last: its first process has everything, and waits.

        ``asked`` as of `run`; None: it is made ahead.
        """
        async with AsyncUndo() as undo:
            undo.push_async_callback(self.release, container)
            self.links.check(container)
            check_name_servers(container.host.dns or ())
            await self.container_volumes.attach(container)
            failpoint("start.volumes-attached")
            message = await self.messages.prepare(container)
            if asked is None:
                message["ahead"] = True
            failpoint("start.bundle-written")
            monitor = await self.launcher.start_container(message)
            undo.push_async_callback(self.orphans.abandon, container, monitor)
            failpoint("start.launcher-asked")
            if asked is not None:
                asked()
            created = await self.launcher.created(monitor)
            failpoint("start.created")
            try:
                kept = await self.sandboxes.wire(container, created.netns_fd, created.rtnl_fd)
            except KetchError as e:
                e.message = f"failed to set up container networking: {e.message}"
                raise
            finally:
                created.close()
            if kept:
                monitor.keep(kept)
            return PreparedStart(monitor, created.pid, undo.pop_all())

    @staticmethod
    async def _connect(container: Container, live: Live, monitor: MonitorClient) -> None:
        """Connect a container that is about to run to the clients that wait for it."""
        for options, stream in live.early:
            await pass_stream(monitor, options, stream, container)
        live.early.clear()
        for fd in live.held:
            monitor.hold(fd)
        live.release_held()

    async def release(self, container: Container) -> None:
        """Release the container's networks and volumes; failures are logged, and left to the daemon's next start."""
        for work in (self.sandboxes.unwire(container), self.container_volumes.detach(container)):
            try:
                await work
            except (KetchError, OSError) as e:
                log.error("release what container %s had: %s", container.id[:12], e)


async def pass_stream(
    monitor: MonitorClient, options: AttachOptions, stream: ClientStream, container: Container
) -> None:
    """Pass a client's socket to the monitor, which serves it from then on."""
    try:
        wanted = StreamOptions(
            stdin=options.stdin and container.config.open_stdin,
            stdout=options.stdout,
            stderr=options.stderr,
            output="raw" if container.config.tty or options.raw else "mux",
            detach_keys=options.detach_keys,
            initial=stream.initial,
            ending=stream.told_ending,
            start="start" if options.logs else None,
        )
        await monitor.attach(stream.fd, wanted)
    finally:
        stream.close()
