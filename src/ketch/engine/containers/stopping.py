"""Stopping of containers: the signal, the timeout, and the kill after it."""

from __future__ import annotations

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

DEFAULT_STOP_TIMEOUT_S = 10
_KILL_S = 10.0


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
        if timeout_s is None:
            timeout_s = container.config.stop_timeout
        if timeout_s is None:
            timeout_s = DEFAULT_STOP_TIMEOUT_S
        self._stopping(container)
        past = await self._signal(container, live, number)
        failpoint("stop.signalled")
        await self._end(container, live, timeout_s if timeout_s >= 0 else None, past=past)
        self.events.of_container(container, "stop")

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


def _stuck(container: Container) -> KetchError:
    return KetchError(
        f"stop container `{container.name}`: its processes do not end after SIGKILL",
        hint="a process in uninterruptible sleep (state D) holds it; look with `ketch top`",
    )
