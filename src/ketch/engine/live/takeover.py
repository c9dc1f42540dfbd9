"""Takeover of containers that kept running without a daemon, at once or when their monitors answer again.

    monitor answers                         take charge                                  (`Lifecycle.adopt`)
    monitor lives and does not answer       running; asked again in the background       (`Pursuit`)
        … and its program never began       its start was never acknowledged: ended
    monitor gone                            its end is handled: exit record, else 137

A monitor does not answer while it is stopped, or while there are no descriptors for a connection to it.  Until it does,
signals go past it (`direct`), and what needs it fails after a moment of waiting (`Live.reach`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.live.containers import Pursuit
from ketch.engine.model.records import Status
from ketch.engine.monitors import process as monitor_process
from ketch.engine.monitors.link import Silent
from ketch.engine.monitors.monitor_client import MonitorClient
from ketch.errors import KetchError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.live.shared_pids import SharedPids
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.paths import ContainerPaths

    Handler = Callable[[Container, MonitorClient | None], Awaitable[None]]

log = logging.getLogger(__name__)
_AGAIN_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 10.0
_LOOK_S = 0.01


class Takeover(Struct, frozen=True, eq=False):
    """Connections to the monitors that an earlier daemon left."""

    store: ContainerStore
    live: LiveContainers
    tasks: BackgroundTasks
    paths: ContainerPaths
    cgroups: ContainerCgroups
    shared_pids: SharedPids

    async def reach(self, container: Container, patience_s: float | None) -> MonitorClient | None:
        """Connect to the container's monitor; None when there is none, or its container was never told to start.

        Raises Unavailable when there is one that does not answer, OSError when that cannot be found out.
        """
        run_dir = self.paths.run_dir(container.id)
        monitor = MonitorClient.dial(run_dir) or await self._ask_for_socket(container, patience_s)
        if monitor is None:
            return None
        try:
            if patience_s is not None and monitor_process.is_stopped(monitor.process):
                raise Silent(f"the monitor with pid {monitor.process} is stopped")
            return monitor if await monitor.greeted(patience_s) else None
        except BaseException:
            monitor.disconnect()
            raise

    async def attempt(self, container: Container, patience_s: float | None, handle: Handler) -> MonitorClient | None:
        """`reach` the monitor and ``handle`` the result; a failure can be retried (Unavailable, OSError)."""
        monitor = await self.reach(container, patience_s)
        try:
            await handle(container, monitor)
        except OSError as e:
            if monitor is None or self.live.of(container.id).monitor is not monitor:
                if monitor is not None:
                    monitor.disconnect()
                raise
            log.warning("take over container %s: %s", container.id[:12], e)
        return monitor

    async def _ask_for_socket(self, container: Container, patience_s: float | None) -> MonitorClient | None:
        """Have a living monitor whose socket is gone make its run directory anew."""
        run_dir = self.paths.run_dir(container.id)
        pid = monitor_process.find(run_dir, container.id, container.state.pid)
        if not pid:
            return None
        if monitor_process.handles_sigusr1(pid):
            log.warning("container %s: its run directory was lost; asking its monitor for another", container.id[:12])
            os.makedirs(run_dir, mode=0o700, exist_ok=True)
            os.kill(pid, signal.SIGUSR1)
        deadline = time.monotonic() + (_AGAIN_S if patience_s is None else patience_s)
        while not monitor_process.is_stopped(pid) and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_S)
            if (monitor := MonitorClient.dial(run_dir)) is not None:
                return monitor
            if not monitor_process.lives(pid, container.id):
                return MonitorClient.dial(run_dir)
        raise Silent(f"the monitor with pid {pid} does not listen")

    async def _try_again(self, container: Container, pursuit: Pursuit, handle: Handler) -> None:
        """Retry with growing pauses until the monitor is reached or has ended."""
        pause_s, logged = _FIRST_PAUSE_S, ""
        while True:
            if pursuit.why != logged:
                log.warning("container %s: %s; trying again in the background", container.id[:12], pursuit.why)
                logged = pursuit.why
            await self._pause(container, pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            try:
                monitor = await self.attempt(container, None, handle)
            except (Unavailable, OSError) as e:
                pursuit.why = _reason(e)
                continue
            except KetchError:
                log.exception("restore container %s", container.id[:12])
            else:
                log.info("container %s: %s", container.id[:12], "taken over" if monitor else "its monitor is gone")
            break
        live = self.live.of(container.id)
        live.pursuit = None
        live.release_held()  # a monitor has its own copies now
        pursuit.over.set()

    async def _pause(self, container: Container, seconds: float) -> None:
        """Wait before the next try, or until the monitor ends."""
        try:
            pid = monitor_process.find(self.paths.run_dir(container.id), container.id, container.state.pid)
            if pid:
                await monitor_process.ended(pid, seconds)
                return
        except OSError as e:
            log.debug("look at the monitor of container %s: %s", container.id[:12], e)
        await asyncio.sleep(seconds)

    async def pursue(self, container: Container, why: Exception, handle: Handler) -> None:
        """Retry in the background to reach a monitor; ``handle`` is called with the result.

        The container is shown as running, unless it never was: then its monitor, which would undo the start, is ended.
        """
        try:
            if not container.state.running and not await asyncio.to_thread(self._program_runs, container):
                pid = monitor_process.find(self.paths.run_dir(container.id), container.id, 0)
                if await monitor_process.end(pid, container.id, grace_s=0):
                    await handle(container, None)
                    return
        except OSError as e:
            log.warning("look at the monitor of container %s: %s", container.id[:12], e)
        pursuit = Pursuit(_reason(why))
        self.live.of(container.id).pursuit = pursuit
        self.tasks.watch(self._try_again(container, pursuit, handle))
        self.shared_pids.watch(container)

    def _program_runs(self, container: Container) -> bool:
        """Whether a container runs although its record says otherwise: its daemon died before recording the start."""
        monitor = monitor_process.find(self.paths.run_dir(container.id), container.id, 0)
        first = monitor_process.child_with_program(monitor, self.cgroups.of(container).pids()) if monitor else 0
        if not first:
            return False
        state = container.state
        state.status, state.pid, state.started_at = Status.RUNNING, first, state.started_at or time.time_ns()
        state.exit_code, state.error, state.finished_at, state.oom_killed = 0, "", 0, False
        self.store.save_best_effort(container)
        return True


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, KetchError) else str(error)
