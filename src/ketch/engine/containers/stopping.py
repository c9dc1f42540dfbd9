"""Stopping of containers: the signal, the timeout, and the kill after it."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.live import direct
from ketch.engine.model.records import Status
from ketch.engine.spec import bundle
from ketch.errors import Conflict, KetchError, NotModified
from ketch.failpoints import failpoint

if TYPE_CHECKING:
    from ketch.engine.events.bus import EventBus
    from ketch.engine.live.containers import Live, LiveContainers
    from ketch.engine.live.direct import DirectSignals
    from ketch.engine.live.shared_pids import SharedPids
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore

log = logging.getLogger(__name__)
DEFAULT_STOP_TIMEOUT_S = 10
_KILL_S = 10.0
_GRACE_S = 5  # that the daemon's end gives to a container beyond its own time


class Stopping(Struct, frozen=True, eq=False):
    """The operations ``stop`` and ``kill``."""

    store: ContainerStore
    live: LiveContainers
    events: EventBus
    direct: DirectSignals
    shared_pids: SharedPids

    async def kill_unhealthy(self, container: Container) -> None:
        """Kill an unhealthy container; unlike after a user's ``kill``, its restart policy applies."""
        await self._signal(container, self.live.of(container.id), signal.SIGKILL)

    async def kill(self, container: Container, signal_name: str) -> None:
        """Send one signal to PID 1 (Conflict when the container does not run)."""
        number = bundle.signal_number(signal_name or "KILL")
        live = self.live.of(container.id)
        if container.state.status is Status.RESTARTING and await self._end_pause(container, live):
            return  # whatever the signal: as dockerd
        if not container.state.running or (live.monitor is None and live.pursuit is None):
            raise Conflict(f"container {container.id} is not running")
        if number in (9, 15) or number == self._stop_signal(container):
            self._stopping(container)
        way = await self.direct.deliver(container, live, number)
        if way is direct.Way.GONE:  # it ended just now
            raise Conflict(f"container {container.id} is not running")
        failpoint("kill.signalled")
        self.events.of_container(container, "kill", signal=str(number))
        if number == signal.SIGKILL:  # whoever asks for the state next wants to see it dead
            await self.shared_pids.thaw(container, number)
            if way is direct.Way.PAST:
                await self.direct.finish(container, live)
            else:
                await direct.ended_within(live, _KILL_S)

    async def end(self, container: Container) -> None:
        """Kill a container that is to be removed (KetchError when its processes stay; Conflict: it does not run)."""
        await self.kill(container, "KILL")
        if not self.live.of(container.id).exited.is_set() and container.state.running:
            raise _stuck(container)

    def _stopping(self, container: Container) -> None:
        """Record, before the signal, that a user stops it: after a crash its policy must not restart it."""
        if not container.stopped_by_user:
            container.stopped_by_user = True
            self.store.save_best_effort(container, durable=False)

    @staticmethod
    def _stop_signal(container: Container) -> int:
        return bundle.signal_number(container.config.stop_signal or "TERM")

    async def stop(self, container: Container, timeout_s: int | None, signal_name: str | None) -> None:
        """Send the stop signal, wait up to ``timeout_s`` (negative: for ever), then kill (NotModified: not running)."""
        live = self.live.of(container.id)
        if container.state.status is Status.RESTARTING and await self._end_pause(container, live):
            self.events.of_container(container, "stop")
            return
        if not container.state.running or (live.monitor is None and live.pursuit is None):
            raise NotModified(f"container {container.id} is already stopped")
        number = bundle.signal_number(signal_name) if signal_name else self._stop_signal(container)
        self._stopping(container)
        await self._stop(container, live, number, _timeout(container) if timeout_s is None else timeout_s)

    async def _stop(self, container: Container, live: Live, number: int, timeout_s: int) -> None:
        past = await self._signal(container, live, number)
        failpoint("stop.signalled")
        await self._end(container, live, timeout_s if timeout_s >= 0 else None, past=past)
        self.events.of_container(container, "stop")

    def longest_s(self, least_s: int) -> int | None:
        """The seconds within which `stop_all` is over, ``least_s`` or more; None: there is no limit.

        dockerd's rule: a container has its own time and a bit more.
        """
        times = [_timeout(container) for container in self.store.all() if container.state.running]
        if least_s < 0 or min(times, default=0) < 0:
            return None
        return max([least_s, *(time_s + _GRACE_S for time_s in times)])

    async def stop_all(self, least_s: int) -> None:
        """Stop all containers, each by its own signal and within its own time, because the daemon ends.

        No user stops them: when the daemon is back, their restart policies decide.  They must not act before.
        """
        containers = self.store.all()
        log.info("stopping all containers (%d)", sum(container.state.running for container in containers))
        try:
            async with asyncio.timeout(self.longest_s(least_s)):
                ends = await asyncio.gather(*map(self._stop_with_daemon, containers), return_exceptions=True)
            for failure in filter(None, ends):
                log.error("stop all containers", exc_info=failure)
        except TimeoutError:
            names = ", ".join(container.name for container in containers if container.state.running)
            log.error("stop all containers: these have not ended: %s", names)

    async def _stop_with_daemon(self, container: Container) -> None:
        live = self.live.of(container.id)
        async with live.lock:  # a start that has begun comes to its end first
            pass
        if not container.state.running or (live.monitor is None and live.pursuit is None):  # its end is being handled
            return
        try:
            await self._stop(container, live, self._stop_signal(container), _timeout(container))
        except (KetchError, OSError) as e:
            log.error("stop container %s: %s", container.name, e)

    async def _end(self, container: Container, live: Live, limit_s: float | None, *, past: bool) -> None:
        """Wait for the end after the signal, then kill (KetchError: in vain); ``past``: the monitor does not answer."""
        if past:
            await self.direct.down_within(container, live, limit_s)
            await self.direct.finish(container, live)
        elif not await direct.ended_within(live, limit_s):
            if await self._signal(container, live, 9):
                await self.direct.finish(container, live)
            elif not await direct.ended_within(live, _KILL_S):
                raise _stuck(container)

    async def _signal(self, container: Container, live: Live, number: int) -> bool:
        """Send a signal, and thaw a frozen container for it; returns whether the monitor was bypassed."""
        way = await self.direct.deliver(container, live, number)
        if way is direct.Way.GONE:  # its exit is about to be handled
            return False
        await self.shared_pids.thaw(container, number)
        self.events.of_container(container, "kill", signal=str(number))
        return way is direct.Way.PAST

    async def _end_pause(self, container: Container, live: Live) -> bool:
        """Cancel the pending restart of a container; False when the start has begun."""
        async with live.lock:
            if container.state.status is not Status.RESTARTING:
                return False
            container.stopped_by_user = True
            container.state.status = Status.EXITED
            self.store.save(container)
            live.release_held()
            live.resolve(live.exit_waiters, container.state.exit_code)
        return True


def _timeout(container: Container) -> int:
    """Seconds from the stop signal to SIGKILL; negative: there is no limit."""
    timeout_s = container.config.stop_timeout
    return DEFAULT_STOP_TIMEOUT_S if timeout_s is None else timeout_s


def _stuck(container: Container) -> KetchError:
    return KetchError(
        f"stop container `{container.name}`: its processes do not end after SIGKILL",
        hint="a process in uninterruptible sleep (state D) holds it; look with `ketch top`",
    )
