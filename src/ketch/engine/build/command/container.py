"""Container of one command of a build: started, wired, followed to its end, or killed.

It is started as any container is, by launcher and monitor, and ends as any does: outputs read, cgroup removed, exit
told.  Nothing else knows it: there is no row, no event, and no log but what the connection to the monitor takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from ketch import threads
from ketch.engine.build.command.output import CommandOutput
from ketch.engine.containers.orphans import exists
from ketch.engine.monitors import process as monitor_process
from ketch.engine.monitors.monitor_client import StreamOptions
from ketch.engine.monitors.run_directory import written_pid
from ketch.errors import KetchError
from ketch.failpoints import failpoint
from ketch.runtime.cgroups import common
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from ketch.engine.build.command.networks import CommandNetwork, CommandNetworks
    from ketch.engine.monitors.launcher import Launcher
    from ketch.engine.monitors.monitor_client import Created, MonitorClient
    from ketch.engine.monitors.run_directory import Exit
    from ketch.runtime.protocol import StartContainer

log = logging.getLogger(__name__)
_T = TypeVar("_T")
_END_S = 10.0


class CommandContainers(Struct, frozen=True, eq=False):
    """Runs containers from start messages."""

    launcher: Launcher
    networks: CommandNetworks

    async def run(self, message: StartContainer, network: CommandNetwork, output: Callable[[int, bytes], None]) -> Exit:
        """Run a container to its end, of which nothing is left; cancelled, it is killed (KetchError, OSError)."""
        async with AsyncUndo() as undo:

            async def attach(monitor: MonitorClient) -> _Reading:
                found = await _attached(monitor, output)
                undo.callback(found.close)
                return found

            monitor, read = await self.started(message, network, undo, attach)
            end = await asyncio.shield(monitor.exited)
            await read.ended()
            failpoint("build.ended")
        return end

    async def started(
        self,
        message: StartContainer,
        network: CommandNetwork,
        undo: AsyncUndo,
        attach: Callable[[MonitorClient], Coroutine[Any, Any, _T]],
    ) -> tuple[MonitorClient, _T]:
        """Start a container, which ``undo`` ends; ``attach`` takes its streams before its program runs (KetchError)."""
        monitor = await self.launcher.start_container(message)
        undo.push_async_callback(_end, monitor, message)
        failpoint("build.launcher-asked")
        created = await self.launcher.created(monitor)
        wiring = asyncio.create_task(self._wired(message["id"], created, network, undo))
        try:
            streams = await attach(monitor)
        finally:
            await threads.to_the_end(wiring)
        failpoint("build.wired")
        await monitor.start()
        failpoint("build.running")
        return monitor, streams

    async def _wired(self, name: str, created: Created, network: CommandNetwork, undo: AsyncUndo) -> None:
        """Connect it to its network; ``undo`` disconnects it."""
        try:
            if network.record is not None:
                undo.push_async_callback(self.networks.release, name)
            await self.networks.connect(name, network, created)
        finally:
            created.close()


class _Reading:
    """The connection that takes a command's output."""

    def __init__(self, transport: asyncio.BaseTransport, protocol: CommandOutput) -> None:
        self._transport, self._protocol = transport, protocol

    async def ended(self) -> None:
        await asyncio.shield(self._protocol.ended)

    def close(self) -> None:
        self._transport.close()


async def _attached(monitor: MonitorClient, output: Callable[[int, bytes], None]) -> _Reading:
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as undo:
        undo.callback(ours.close)
        with theirs:
            await monitor.attach(theirs.fileno(), StreamOptions(stdout=True, stderr=True, output="mux"))
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_accepted_socket(lambda: CommandOutput(output), ours)
        undo.pop_all()
    return _Reading(transport, protocol)


async def _end(monitor: MonitorClient, message: StartContainer) -> None:
    """End what is left of a container, whatever state it is in; returns when nothing of it lives."""
    if monitor.exited.done() and not monitor.exited.result().lost:
        monitor.disconnect()
        return
    name = message["id"]
    silent = False
    if monitor.started_at:
        silent = not await _killed(monitor)
        monitor.disconnect()
    else:
        silent = await monitor.abandon()
    pid = monitor.process or written_pid(message["run_dir"])
    if monitor_process.lives(pid, name) and (silent or not await monitor_process.ended(pid, _END_S)):
        await monitor_process.end(pid, name, grace_s=0)
    if not monitor.undone:
        await monitor_process.end_forks(name, but=pid)
    await asyncio.to_thread(clear, message.get("cgroup", ""))


async def _killed(monitor: MonitorClient) -> bool:
    """Kill a running container, and wait for its end; False when its monitor does not answer."""
    try:
        await monitor.kill(signal.SIGKILL)
        await asyncio.wait_for(asyncio.shield(monitor.exited), _END_S)
    except (KetchError, TimeoutError) as e:
        log.warning("end a build's command: %s", e)
        return False
    return True


def clear(cgroup: str) -> None:
    """Kill and remove what is in a cgroup, and the cgroup; blocking.  A failure is logged: the next start tries again.

    A killed monitor leaves it.
    """
    try:
        found = common.at(cgroup)
        if exists(found.describe()):
            found.kill()
            found.remove()
    except (KetchError, OSError) as e:
        log.error("end what is left of a build's command in cgroup %s: %s", cgroup, e)
