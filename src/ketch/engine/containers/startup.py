"""Startup of a container: from its record to a running program; a failed one is undone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec import Struct

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
    from ketch.engine.monitors.monitor_client import Created, MonitorClient
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
            undo.push_async_callback(self.release, container)
            undo.callback(live.close_early)
            self.links.check(container)
            check_name_servers(container.host.dns or ())
            await self.container_volumes.attach(container)
            failpoint("start.volumes-attached")
            message = await self.messages.prepare(container)
            failpoint("start.bundle-written")
            monitor = await self.launcher.start_container(message)
            undo.push_async_callback(self.orphans.abandon, container, monitor)
            failpoint("start.launcher-asked")
            asked()
            created = await self.launcher.created(monitor)
            failpoint("start.created")
            await self._connect(container, live, monitor, created, undo)
            failpoint("start.wired")
            started_at = await monitor.start()
            failpoint("start.running")
            undo.pop_all()
        return Started(monitor, created.pid, started_at)

    async def _connect(
        self, container: Container, live: Live, monitor: MonitorClient, created: Created, undo: AsyncUndo
    ) -> None:
        """Connect a container that is about to run to its networks and to the clients that wait for it."""
        try:
            kept = await self.sandboxes.wire(container, created.netns_fd, created.rtnl_fd)
        except KetchError as e:
            e.message = f"failed to set up container networking: {e.message}"
            raise
        finally:
            created.close()
        undo.callback(self.sandboxes.tell_unwired, container, "disconnect")
        if kept:
            monitor.keep(kept)
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
            start="start" if options.logs else None,
        )
        await monitor.attach(stream.fd, wanted)
    finally:
        stream.close()
