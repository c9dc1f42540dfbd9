"""Lifecycle of containers: start, restart, and the handling of exits.

                 start                    exit (event from the monitor)
    created ───────────────► running ─────────────────────────► exited ──► (restart policy) start again
       ▲  failed: stays created │ stop, kill: a signal, then wait for the exit    │ --rm
       └────────────────────────┘                                                 └──► removed

State changes of one container are ordered by its ``Live.lock``.  The exit is handled in one place
(``on_exit``), whoever caused it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from msgspec import Struct, field

from ketch.engine import os_errors
from ketch.engine.containers import pending_changes, restart_policy
from ketch.engine.model.records import Status
from ketch.engine.stats.counters import timed
from ketch.errors import (
    PROGRAM_EXIT_CODES,
    Conflict,
    KetchError,
    MountMismatch,
    NotFound,
    NotModified,
    Unavailable,
)
from ketch.failpoints import failpoint
from ketch.storage.database.mark import boot_id
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.containers.listeners import Listeners
    from ketch.engine.containers.orphans import Orphans
    from ketch.engine.containers.removal import Removal
    from ketch.engine.containers.startup import Startup
    from ketch.engine.containers.stopping import Stopping
    from ketch.engine.events.bus import EventBus
    from ketch.engine.live.containers import Live, LiveContainers
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.monitors.monitor_client import MonitorClient
    from ketch.engine.monitors.run_directory import Exit
    from ketch.engine.networks.link_changes import LinkChanges
    from ketch.engine.stats.counters import Counters

log = logging.getLogger(__name__)
_EXIT_CODES = {**PROGRAM_EXIT_CODES, MountMismatch: 127}  # what `inspect` shows of a start that failed
_OTHERS_S = 10.0  # how long a restart waits for those of containers that it needs
_RESTARTS_AT_ONCE = 8  # after a power cut all come back together, and clients want to be answered meanwhile


class Lifecycle(Struct, frozen=True, eq=False):
    """The verbs that change whether a container runs."""

    store: ContainerStore
    live: LiveContainers
    cgroups: ContainerCgroups
    events: EventBus
    tasks: BackgroundTasks
    startup: Startup
    stopping: Stopping
    removal: Removal
    orphans: Orphans
    link_changes: LinkChanges
    listeners: Listeners
    counters: Counters
    _restored: asyncio.Event = field(default_factory=asyncio.Event)
    _closed: asyncio.Event = field(default_factory=asyncio.Event)
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_RESTARTS_AT_ONCE))

    def begin_restarts(self) -> None:
        """Let restart policies act from now on: what an earlier daemon left has been restored."""
        self._restored.set()

    def end_restarts(self) -> None:
        """Let nothing be started any more: the daemon ends."""
        self._closed.set()

    # -- start ---------------------------------------------------------------------------------

    async def start(self, container: Container) -> None:
        """Bring the container up; NotModified when it runs, RuntimeFailure when its program cannot be started."""
        live = self.live.of(container.id)
        async with live.lock:
            if self._closed.is_set():
                raise Unavailable(f"start container `{container.name}`: ketchd is about to end")
            if container.id not in self.store.ids:  # it was removed while we waited
                self.live.forget(container.id)
                self.cgroups.forget(container.id)
                raise NotFound(f"No such container: {container.id}")
            if container.state.status is Status.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.state.up:  # also in the pause before a restart, which comes by itself
                raise NotModified(f"container {container.id} is already running")
            if live.removing or container.state.going:
                raise Conflict("container is marked for removal and cannot be started")
            if live.pursuit is not None:
                raise Unavailable(f"start container `{container.name}`: of an earlier start {live.pursuit.why}")
            container.stopped_by_user = False
            container.restart_count, container.restart_delay_s = 0, 0.0
            await self._start_locked(container, live)
        await self.store.flush_durable()

    @timed("start")
    async def _start_locked(self, container: Container, live: Live) -> None:
        before, recorded = pending_changes.apply(self.store, container), False

        def record() -> None:
            nonlocal recorded
            recorded = self._record_begin(container)

        try:
            started = await self.startup.run(container, live, record)
        except BaseException as e:
            why = os_errors.explained(e, f"start container `{container.name}`") if isinstance(e, OSError) else e
            async with AsyncUndo() as undo:
                undo.callback(pending_changes.take_back, self.store, container, before, why)
                undo.push_async_callback(self._record_failure, container, why)
                if why is e:
                    raise
                raise why from e
        state = container.state
        state.status, state.pid, state.exit_code, state.error = Status.RUNNING, started.pid, 0, ""
        state.started_at, state.finished_at, state.oom_killed = started.started_at, 0, False
        state.starting = ""
        self._watch(container, live, started.monitor, fresh=True)
        self.store.save_best_effort(container, durable=not (recorded or container.is_ephemeral))
        failpoint("start.saved")
        self.link_changes.started(container)
        self.events.of_container(container, "start")

    def _record_begin(self, container: Container) -> bool:
        """Record that a start has begun, and bring that to the disk while the container is made.

        It is all that is needed of an acknowledged start after a power cut, so that nobody waits for the disk at its
        end.  False when it cannot be written.
        """
        container.state.starting = boot_id()
        if container.is_ephemeral:
            return self.store.save_best_effort(container, durable=False)
        written = self.store.save_best_effort(container)
        self.store.begin_flush()
        return written

    async def _record_failure(self, container: Container, why: BaseException) -> None:
        """Record the reason of a failed start, which has been undone."""
        begun, container.state.starting = bool(container.state.starting), ""
        if isinstance(why, KetchError):
            container.state.error = why.message
            container.state.exit_code = _EXIT_CODES.get(type(why), 128)
            if container.state.status is not Status.EXITED:
                container.state.status = Status.CREATED
            self.store.save_best_effort(container)
            if container.host.auto_remove:
                await self.removal.remove_ended(container)
        else:
            self.store.save_best_effort(container, durable=begun)
        if begun:  # after a power cut it would count as one that ran
            await self.store.flush_durable()

    # -- exit ----------------------------------------------------------------------------------

    def adopt(self, container: Container, monitor: MonitorClient) -> None:
        """Take charge of a container that kept running while the daemon was away."""
        for fd in self.live.of(container.id).held:
            monitor.hold(fd)
        self._watch(container, self.live.of(container.id), monitor, fresh=False)

    def _watch(self, container: Container, live: Live, monitor: MonitorClient, *, fresh: bool) -> None:
        live.monitor = monitor
        live.exited.clear()
        monitor.on_oom = lambda: self._out_of_memory(container)
        if monitor.ooms and not container.state.oom_killed:  # it was told to nobody
            self._out_of_memory(container)
        monitor.on_exec_exit = self.listeners.exec_exited
        if container.state.status is not Status.PAUSED:
            self.listeners.health.begin(container, self.act_on_unhealthy, fresh=fresh)
        self.tasks.watch(self._await_exit(container, live, monitor))
        self.stopping.shared_pids.watch(container)

    def _out_of_memory(self, container: Container) -> None:
        container.state.oom_killed = True
        self.store.save(container, durable=False)
        self.events.of_container(container, "oom")

    async def _await_exit(self, container: Container, live: Live, monitor: MonitorClient) -> None:
        exit_ = await monitor.exited
        failpoint("exit.received")
        async with live.lock:
            # When its monitor was killed nobody else ends what is left of it.
            await asyncio.to_thread(self.orphans.clear, container)
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
        waiters, live.exit_waiters = live.exit_waiters, set()
        restart = not self._closed.is_set() and restart_policy.wanted(container)
        if restart:  # said at once: nobody shall see it as exited for good in between
            state.status = Status.RESTARTING
            container.restart_count += 1
            container.restart_delay_s = restart_policy.next_pause(container.restart_delay_s, ran_s)
        if exit_.oom and not state.oom_killed:
            self._out_of_memory(container)
        await self.startup.release(container)
        self.startup.sandboxes.tell_unwired(container, "disconnect")
        failpoint("exit.unwired")
        leaves = container.host.auto_remove and not live.removal_deferred and not restart
        if not leaves:
            self.store.save_best_effort(container, durable=False)
        failpoint("exit.saved")
        self.events.of_container(container, "die", exitCode=str(exit_.code), execDuration=str(int(ran_s)))
        if not leaves:
            try:
                await self.store.flush()
            except KetchError as e:  # the monitor's own record is on the disk, and who waits must be told
                log.error("keep the end of container %s: %s", container.id[:12], e.message)
        live.exited.set()
        live.resolve(waiters, exit_.code)
        if restart:
            self.restart_later(container)
        elif leaves:
            await self.removal.remove_ended(container)

    def restart_later(self, container: Container) -> None:
        """Have a container whose policy wants it started again, when its pause is over."""
        live = self.live.of(container.id)
        if live.restart_task is not None:  # one that waits for the end of an older pause
            live.restart_task.cancel()
        live.restart_task = self.tasks.watch(self._restart_later(container, live))

    async def _restart_later(self, container: Container, live: Live) -> None:
        """Start a container after its pause; a failed start counts as an exit, and the policy decides again."""
        await self._restored.wait()
        while True:
            await asyncio.sleep(restart_policy.pause_left(container))
            failpoint("restart.pending")
            await self._after_others(container)
            async with self._turn, live.lock:
                gone = live.removing or container.stopped_by_user or self._closed.is_set()
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
                self.store.save_best_effort(container)
                live.resolve(live.exit_waiters, container.state.exit_code)
                if not again:
                    return

    async def _after_others(self, container: Container) -> None:
        """Wait for the containers that it depends on, if they are about to be restarted as well."""
        coming = [self.live.of(needed).restart_task for needed in restart_policy.needed(container, self.store)]
        if tasks := [task for task in coming if task is not None and not task.done()]:
            await asyncio.wait(tasks, timeout=_OTHERS_S)

    async def act_on_unhealthy(self, container: Container, action: str) -> None:
        """Carry out ``--health-on-failure``; after ``kill`` the restart policy decides."""
        if action == "kill":
            await self.stopping.kill_unhealthy(container)
        elif action == "restart":
            await self.restart(container, None, None)
        elif action == "stop":
            await self.stopping.stop(container, None, None)

    def frozen(self, container: Container, frozen: bool) -> None:
        """Pause or resume the healthchecks of a container that is paused or resumed."""
        if frozen:
            self.listeners.health.end(container)
        else:
            self.listeners.health.begin(container, self.act_on_unhealthy, fresh=False)

    # -- restart -------------------------------------------------------------------------------

    async def restart(self, container: Container, timeout_s: int | None, signal_name: str | None) -> None:
        """Stop (when running), then start; one that the end of the daemon cuts short is left to the policy."""
        try:
            with self.live.of(container.id).restart():
                await self._restart(container, timeout_s, signal_name)
        except (Unavailable, asyncio.CancelledError) as e:
            if self._closed.is_set() or isinstance(e, asyncio.CancelledError):  # nobody stopped it for good
                container.stopped_by_user = False
                self.store.save_best_effort(container)
            raise

    async def _restart(self, container: Container, timeout_s: int | None, signal_name: str | None) -> None:
        if container.state.running or container.state.status is Status.RESTARTING:
            with self.live.of(container.id).defer_removal():
                try:
                    await self.stopping.stop(container, timeout_s, signal_name)
                except NotModified:
                    log.debug("container %s ended by itself before its restart", container.id[:12])
        failpoint("restart.stopped")
        await self.start(container)
        self.events.of_container(container, "restart")
