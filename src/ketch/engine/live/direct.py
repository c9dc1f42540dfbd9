"""Direct signals to a running container, bypassing a monitor that does not answer.

Signals go to PID 1 through a pidfd, and what does not end is killed in the container's cgroup.  The monitor is ended as
well then: it has nothing to look after any more, and the end that it records (or its own) is what everybody waits for.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import signal
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch import pidfd
from ketch.engine.monitors import process as monitor_process
from ketch.errors import KetchError, Unavailable

if TYPE_CHECKING:
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.live.containers import Live
    from ketch.engine.model.records import Container
    from ketch.engine.paths import ContainerPaths

log = logging.getLogger(__name__)
_RECORDED_S = 3.0


class Way(enum.Enum):
    """The way of a signal; GONE: not sent, the container has just ended."""

    MONITOR = enum.auto()
    PAST = enum.auto()
    GONE = enum.auto()


class DirectSignals(Struct, frozen=True, eq=False):
    """Signals, and the end of processes, without the help of a monitor."""

    paths: ContainerPaths
    cgroups: ContainerCgroups

    async def deliver(self, container: Container, live: Live, number: int) -> Way:
        """Send a signal to PID 1 of a running container through its monitor, or else directly."""
        monitor = live.monitor
        if monitor is not None:
            try:
                await monitor.kill(number)
                return Way.MONITOR
            except Unavailable as e:
                if monitor.exited.done():
                    return Way.GONE
                log.warning("container %s: %s; the signal goes past it", container.id[:12], e.message)
        elif live.pursuit is None:
            return Way.GONE
        await asyncio.to_thread(self.signal_first, container, number)
        return Way.PAST

    def signal_first(self, container: Container, number: int) -> None:
        """Send a signal to PID 1; nothing happens when it has ended."""
        pid = container.state.pid
        if not pid:  # its end was recorded while this waited for its thread
            return
        try:
            fd = pidfd.open_process(pid)
        except ProcessLookupError:
            return
        try:
            if pid in self.cgroups.of(container).pids():  # else the pid is somebody else's by now
                signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            log.debug("container %s: its first process ended just now", container.id[:12])
        finally:
            os.close(fd)

    async def down_within(self, container: Container, live: Live, seconds: float | None) -> bool:
        """Wait for the end of PID 1, or of the container; False after ``seconds`` (None: for ever)."""
        pid = container.state.pid
        if pid not in await asyncio.to_thread(self.cgroups.of(container).pids):
            return True
        first = asyncio.ensure_future(monitor_process.ended(pid, None))
        whole = asyncio.ensure_future(live.exited.wait())
        try:
            done, _ = await asyncio.wait((first, whole), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            first.cancel()
            whole.cancel()
        return bool(done)

    async def finish(self, container: Container, live: Live) -> None:
        """Kill a container's remaining processes and end its monitor; returns when its exit is recorded.

        KetchError says what lives on.
        """
        if live.exited.is_set():
            return
        await asyncio.to_thread(self.cgroups.of(container).kill)
        if left := await asyncio.to_thread(self.alive, container, but_monitor=True):
            raise KetchError(
                f"stop container `{container.name}`: after SIGKILL there is still {left}",
                hint="a process in uninterruptible sleep (state D) or under a debugger ends later; try again then",
            )
        monitor = monitor_process.find(self.paths.run_dir(container.id), container.id, container.state.pid)
        if not monitor and live.monitor is not None:
            monitor = live.monitor.process
        await monitor_process.end(monitor, container.id)
        try:
            await asyncio.wait_for(live.exited.wait(), _RECORDED_S)
        except TimeoutError:
            left = self.alive(container) or "nothing, but nobody has told of its end"
            raise KetchError(f"stop container `{container.name}`: after SIGKILL there is still {left}") from None

    def alive(self, container: Container, *, but_monitor: bool = False) -> str:
        """A description of the processes left of a container and its monitor; empty: none."""
        words = []
        pids = self.cgroups.of(container).pids()
        if pids:
            words.append(f"process {', '.join(map(str, pids[:5]))} in its cgroup")
        if not but_monitor:
            monitor = monitor_process.find(self.paths.run_dir(container.id), container.id, container.state.pid)
            words += [f"its monitor (pid {monitor})"] if monitor else []
        return " and ".join(words)


async def ended_within(live: Live, seconds: float | None) -> bool:
    """Wait for the end of a container as its monitor reports it; False after ``seconds`` (None: for ever)."""
    try:
        await asyncio.wait_for(live.exited.wait(), seconds)
    except TimeoutError:
        return False
    return True
