"""Start, stop, kill, restart, and what happens when a container ends.

                 start                    exit (event from the monitor)
    created ───────────────► running ─────────────────────────► exited ──► (restart policy) start again
       ▲  failed: stays created │ stop, kill: a signal, then wait for the exit    │ --rm
       └────────────────────────┘                                                 └──► removed

State changes of one container are ordered by its ``Live.lock``.  The exit is handled in one place
(``_on_exit``), whoever caused it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from typing import TYPE_CHECKING

from ketch import faults
from ketch.engine import os_errors
from ketch.engine.containers import orphans, pending_changes, restart_policy, start_message
from ketch.engine.live import direct, shared_pids
from ketch.engine.model.records import Status
from ketch.engine.spec import bundle
from ketch.engine.volumes import container_volumes
from ketch.errors import Conflict, KetchError, NotFound, NotModified, RuntimeFailure, Unavailable
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ketch.engine.aio.streams import AttachOptions, ClientStream
    from ketch.engine.containers.listeners import Listeners
    from ketch.engine.live.containers import Live
    from ketch.engine.model.records import Container
    from ketch.engine.monitors.monitor_client import Monitor
    from ketch.engine.monitors.run_directory import Exit
    from ketch.engine.parts import Context

log = logging.getLogger(__name__)
DEFAULT_STOP_TIMEOUT_S = 10
_KILL_S = 10.0
_OTHERS_S = 10.0  # how long a restart waits for those of containers that it needs
_RESTARTS_AT_ONCE = 8  # after a power cut all come back together, and clients want to be answered meanwhile
_EXIT_CODES = {"not_found": 127, "not_executable": 126}


class Lifecycle:
    """The verbs that change whether a container runs; ``listeners`` are set before the first of them."""

    listeners: Listeners

    def __init__(self, context: Context) -> None:
        self._ctx = context
        self.stopping = False
        self._turn = asyncio.Semaphore(_RESTARTS_AT_ONCE)
        self.restored = asyncio.Event()  # what an earlier daemon left is in order: restart policies may begin

    # -- start ---------------------------------------------------------------------------------

    async def start(self, container: Container) -> None:
        """Bring the container up; NotModified when it runs, RuntimeFailure when its program cannot be started."""
        live = self._ctx.live.of(container.id)
        async with live.lock:
            if container.id not in self._ctx.store.ids:  # it was removed while we waited
                self._ctx.live.forget(container.id)
                self._ctx.cgroups.forget(container.id)
                raise NotFound(f"No such container: {container.id}")
            if container.state.status is Status.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.state.running:
                raise NotModified(f"container {container.id} is already running")
            if live.removing or container.state.going:
                raise Conflict("container is marked for removal and cannot be started")
            if live.pursuit is not None:
                raise Unavailable(f"start container `{container.name}`: of an earlier start {live.pursuit.why}")
            container.stopped_by_user = False
            container.restart_count, container.restart_delay_s = 0, 0.0
            await self._start_locked(container, live)
        await self._ctx.store.settled()

    async def _start_locked(self, container: Container, live: Live) -> None:
        state = container.state
        monitor: Monitor | None = None
        before = pending_changes.apply(self._ctx, container)
        try:
            self._ctx.links.check(container)
            await container_volumes.attach(self._ctx, container)
            faults.point("start.volumes-attached")
            message = await start_message.prepare(self._ctx, container)
            faults.point("start.bundle-written")
            monitor = await self._ctx.launcher.start_container(message)
            faults.point("start.launcher-asked")
            created = await self._ctx.launcher.created(monitor)
            faults.point("start.created")
            try:
                kept = await self._ctx.sandboxes.wire(container, created.netns_fd, created.rtnl_fd)
            finally:
                created.close()
            if kept:
                monitor.keep(kept)
            for options, stream in live.early:
                await self.hand_over(monitor, options, stream, container)
            live.early.clear()
            for fd in live.held:
                monitor.hold(fd)
            live.release_held()
            faults.point("start.wired")
            started_at = await monitor.start()
            faults.point("start.running")
        except BaseException as e:
            why = os_errors.explained(e, f"start container `{container.name}`") if isinstance(e, OSError) else e
            async with AsyncUndo() as undo:
                undo.callback(pending_changes.take_back, self._ctx, container, before, why)
                undo.push_async_callback(self._undo_start, container, live, monitor, why)
                if why is e:
                    raise
                raise why from e
        state.status, state.pid, state.exit_code, state.error = Status.RUNNING, created.pid, 0, ""
        state.started_at, state.finished_at, state.oom_killed = started_at, 0, False
        self._watch(container, live, monitor, fresh=True)
        self._ctx.store.keep(container, durable=False)
        faults.point("start.saved")
        self._ctx.links.started(container)
        self._ctx.events.of_container(container, "start")

    async def _undo_start(self, container: Container, live: Live, monitor: Monitor | None, why: BaseException) -> None:
        """After a failed start: nothing of it is left, and the record says why."""
        for _, stream in live.early:
            stream.close()
        live.early.clear()
        if monitor is not None:
            await orphans.abandon(self._ctx, container, monitor)
        await self._release(container)
        if isinstance(why, KetchError):
            kind = why.kind if isinstance(why, RuntimeFailure) else "setup"
            container.state.error = why.message
            container.state.exit_code = _EXIT_CODES.get(kind, 128)
            if container.state.status is not Status.EXITED:
                container.state.status = Status.CREATED
            self._ctx.store.keep(container)
            self._ctx.events.of_container(container, "die", exitCode=str(container.state.exit_code))
            if container.host.auto_remove:
                await self.listeners.remove(container)

    async def _release(self, container: Container) -> None:
        """Take back its network and its volumes; what fails is logged, and the next start of the daemon looks again."""
        for work in (self._ctx.sandboxes.unwire(container), container_volumes.detach(self._ctx, container)):
            try:
                await work
            except (KetchError, OSError) as e:
                log.error("release what container %s had: %s", container.id[:12], e)

    async def hand_over(
        self, monitor: Monitor, options: AttachOptions, stream: ClientStream, container: Container
    ) -> None:
        """Pass a client's socket to the monitor; from here on its bytes never cross this process."""
        try:
            await monitor.attach(
                stream.fd,
                stdin=options.stdin and container.config.open_stdin,
                stdout=options.stdout,
                stderr=options.stderr,
                mux=not (container.config.tty or options.raw),
                detach_keys=options.detach_keys,
                initial=stream.initial,
                start="start" if options.logs else None,
            )
        finally:
            stream.close()

    # -- exit ----------------------------------------------------------------------------------

    def adopt(self, container: Container, monitor: Monitor) -> None:
        """Take charge of a container that kept running while the daemon was away."""
        for fd in self._ctx.live.of(container.id).held:
            monitor.hold(fd)
        self._watch(container, self._ctx.live.of(container.id), monitor, fresh=False)

    def _watch(self, container: Container, live: Live, monitor: Monitor, *, fresh: bool) -> None:
        live.monitor = monitor
        live.exited.clear()
        monitor.on_oom = lambda: self._out_of_memory(container)
        if monitor.ooms and not container.state.oom_killed:  # it was told to nobody
            self._out_of_memory(container)
        monitor.on_exec_exit = self.listeners.exec_exited
        if container.state.status is not Status.PAUSED:
            self.listeners.health.begin(container, fresh=fresh)
        self._ctx.tasks.watch(self._await_exit(container, live, monitor))

    def _out_of_memory(self, container: Container) -> None:
        container.state.oom_killed = True
        self._ctx.store.save(container, durable=False)
        self._ctx.events.of_container(container, "oom")

    async def _await_exit(self, container: Container, live: Live, monitor: Monitor) -> None:
        exit_ = await monitor.exited
        faults.point("exit.heard")
        async with live.lock:
            # When its monitor was killed nobody else ends what is left of it.
            await asyncio.to_thread(orphans.clear, self._ctx, container)
            if exit_.lost:
                self.listeners.execs_lost(container.id)
            await self.on_exit(container, live, exit_)

    async def on_exit(self, container: Container, live: Live, exit_: Exit) -> None:
        """Record an exit, free the network, wake those who wait, then restart or remove as configured."""
        state = container.state
        ran_s = (exit_.at_ns - state.started_at) / 1e9
        live.monitor = None
        self.listeners.health.end(container)
        state.status, state.pid, state.exit_code = Status.EXITED, 0, exit_.code
        state.finished_at = exit_.at_ns
        # Who comes after this end can be seen waits for the next one.
        told, live.exit_waiters = live.exit_waiters, set()
        restart = not self.stopping and restart_policy.wanted(container)
        if restart:  # said at once: nobody shall see it as exited for good in between
            state.status = Status.RESTARTING
            container.restart_count += 1
            container.restart_delay_s = restart_policy.next_pause(container.restart_delay_s, ran_s)
        if exit_.oom and not state.oom_killed:
            self._out_of_memory(container)
        await self._release(container)
        faults.point("exit.unwired")
        leaves = container.host.auto_remove and not live.staying and not restart
        if not leaves:
            self._ctx.store.keep(container, durable=False)
        faults.point("exit.saved")
        self._ctx.events.of_container(container, "die", exitCode=str(exit_.code), execDuration=str(int(ran_s)))
        if not leaves:
            try:
                await self._ctx.store.settled()
            except KetchError as e:  # the monitor's own record is on the disk, and who waits must be told
                log.error("keep the end of container %s: %s", container.id[:12], e.message)
        live.exited.set()
        live.resolve(told, exit_.code)
        if restart:
            self.restart_later(container)
        elif leaves:
            await self.listeners.remove(container)

    def restart_later(self, container: Container) -> None:
        """Have a container whose policy wants it started again, when its pause is over."""
        live = self._ctx.live.of(container.id)
        if live.restart_task is not None:  # one that waits for the end of an older pause
            live.restart_task.cancel()
        live.restart_task = self._ctx.tasks.watch(self._restart_later(container, live))

    async def _restart_later(self, container: Container, live: Live) -> None:
        """Start it after its pause; a start that fails counts as an end, so that the policy decides again."""
        await self.restored.wait()
        while True:
            await asyncio.sleep(restart_policy.pause_left(container))
            faults.point("restart.pending")
            await self._after_others(container)
            async with self._turn, live.lock:
                gone = live.removing or container.stopped_by_user or self.stopping
                if gone or container.state.status is not Status.RESTARTING:
                    return
                try:
                    await self._start_locked(container, live)
                    return
                except KetchError as e:
                    log.warning("restart container %s: %s", container.id[:12], e.message)
                again = restart_policy.wanted(container)
                container.state.status = Status.RESTARTING if again else Status.EXITED
                container.restart_count += again
                container.state.finished_at = time.time_ns()
                container.restart_delay_s = restart_policy.next_pause(container.restart_delay_s, 0)
                self._ctx.store.keep(container)
                live.resolve(live.exit_waiters, container.state.exit_code)
                if not again:
                    return

    async def _after_others(self, container: Container) -> None:
        """What it lives in or links to comes first, when that is coming back as well."""
        coming = [self._ctx.live.of(one).restart_task for one in restart_policy.needed(container, self._ctx.store)]
        if tasks := [task for task in coming if task is not None and not task.done()]:
            await asyncio.wait(tasks, timeout=_OTHERS_S)

    def unhealthy_actions(self) -> dict[str, Callable[[Container], Awaitable[None]]]:
        """What ``--health-on-failure`` can do; a container that is killed leaves the rest to its restart policy."""
        return {
            "kill": self._kill_unhealthy,
            "restart": lambda container: self.restart(container, None, None),
            "stop": lambda container: self.stop(container, None, None),
        }

    async def _kill_unhealthy(self, container: Container) -> None:
        await self._signal(container, self._ctx.live.of(container.id), signal.SIGKILL)

    # -- stop, kill ----------------------------------------------------------------------------

    async def kill(self, container: Container, signal_name: str) -> None:
        """Send one signal to PID 1 (Conflict when the container does not run)."""
        number = bundle.signal_number(signal_name or "KILL")
        live = self._ctx.live.of(container.id)
        if container.state.status is Status.RESTARTING and await self._end_pause(container, live):
            return  # whatever the signal: as dockerd
        if not container.state.running or (live.monitor is None and live.pursuit is None):
            raise Conflict(f"cannot kill container: {container.name}: container {container.id} is not running")
        if number in (9, 15) or number == self._stop_signal(container):
            self._stopping(container)
        way = await direct.deliver(self._ctx, container, live, number)
        if way is direct.Way.GONE:  # it ended just now
            raise Conflict(f"cannot kill container: {container.name}: container {container.id} is not running")
        faults.point("kill.signalled")
        self._ctx.events.of_container(container, "kill", signal=str(number))
        if number == signal.SIGKILL:  # whoever asks for the state next wants to see it dead
            shared_pids.thaw(self._ctx, container, number)
            async with shared_pids.reaped(self._ctx, container):
                if way is direct.Way.PAST:
                    await direct.finish(self._ctx, container, live)
                else:
                    await direct.ended_within(live, _KILL_S)

    def _stopping(self, container: Container) -> None:
        """Note that a user wants it down, before it hears of it: its policy must not bring it back after a crash."""
        if not container.stopped_by_user:
            container.stopped_by_user = True
            self._ctx.store.keep(container, durable=False)

    @staticmethod
    def _stop_signal(container: Container) -> int:
        return bundle.signal_number(container.config.stop_signal or "TERM")

    async def stop(self, container: Container, timeout_s: int | None, signal_name: str | None) -> None:
        """Ask, wait up to ``timeout_s`` seconds (negative: for ever), then kill; NotModified when it is down."""
        live = self._ctx.live.of(container.id)
        if container.state.status is Status.RESTARTING and await self._end_pause(container, live):
            return
        if not container.state.running or (live.monitor is None and live.pursuit is None):
            raise NotModified(f"container {container.id} is already stopped")
        number = bundle.signal_number(signal_name) if signal_name else self._stop_signal(container)
        if timeout_s is None:
            timeout_s = container.config.stop_timeout
        if timeout_s is None:
            timeout_s = DEFAULT_STOP_TIMEOUT_S
        self._stopping(container)
        async with shared_pids.reaped(self._ctx, container):
            past = await self._signal(container, live, number)
            faults.point("stop.signalled")
            await self._end(container, live, timeout_s if timeout_s >= 0 else None, past=past)
        self._ctx.events.of_container(container, "stop")

    async def _end(self, container: Container, live: Live, limit_s: float | None, *, past: bool) -> None:
        """After the signal: wait, then kill (KetchError: it does not help); ``past``: the monitor does not answer."""
        if past:
            await direct.down_within(self._ctx, container, live, limit_s)
            await direct.finish(self._ctx, container, live)
        elif not await direct.ended_within(live, limit_s):
            if await self._signal(container, live, 9):
                await direct.finish(self._ctx, container, live)
            elif not await direct.ended_within(live, _KILL_S):
                raise KetchError(
                    f"stop container `{container.name}`: its processes do not end after SIGKILL",
                    hint="a process in uninterruptible sleep (state D) holds it; look with `ketch top`",
                )

    async def _signal(self, container: Container, live: Live, number: int) -> bool:
        """Send a signal, and let a frozen container act on it; whether it went past the monitor."""
        way = await direct.deliver(self._ctx, container, live, number)
        if way is direct.Way.GONE:  # its exit is about to be handled
            return False
        shared_pids.thaw(self._ctx, container, number)
        self._ctx.events.of_container(container, "kill", signal=str(number))
        return way is direct.Way.PAST

    async def _end_pause(self, container: Container, live: Live) -> bool:
        """Give up the next start of a container that waits for it; False when that has begun."""
        async with live.lock:
            if container.state.status is not Status.RESTARTING:
                return False
            container.stopped_by_user = True
            container.state.status = Status.EXITED
            self._ctx.store.save(container)
            live.release_held()
            live.resolve(live.exit_waiters, container.state.exit_code)
        return True

    async def restart(self, container: Container, timeout_s: int | None, signal_name: str | None) -> None:
        """Stop (when running), then start."""
        if container.state.running or container.state.status is Status.RESTARTING:
            with self._ctx.live.of(container.id).stays():
                try:
                    await self.stop(container, timeout_s, signal_name)
                except NotModified:
                    log.debug("container %s ended by itself before its restart", container.id[:12])
        faults.point("restart.stopped")
        await self.start(container)
        self._ctx.events.of_container(container, "restart")
