"""Healthchecks: a command run in the container at intervals, and the status from its exit codes.

                       exit 0                          `retries` failures in a row
    starting ───────────────────────► healthy ◄────────────────────────────────────► unhealthy
        └── failures within the start period do not count                    exit 0

One task for each running container that has a check; it ends with the container, and while that is paused.  The
rules and the defaults are dockerd's: interval 30 s, timeout 30 s, 3 retries, in the start period 5 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from msgspec import Struct, field

from ketch.engine.execs.service import Overdue
from ketch.engine.model.execs import ExecConfig
from ketch.engine.model.merge import as_list
from ketch.engine.model.records import Health, HealthResult, HealthStatus
from ketch.errors import KetchError
from ketch.notation import durations

if TYPE_CHECKING:
    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.containers.listeners import Act
    from ketch.engine.events.bus import EventBus
    from ketch.engine.execs.service import ExecService
    from ketch.engine.model.records import Container, HealthConfig
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.stats.counters import Counters

log = logging.getLogger(__name__)
SECOND = 1_000_000_000
INTERVAL, TIMEOUT, START_INTERVAL, RETRIES = 30 * SECOND, 30 * SECOND, 5 * SECOND, 3
KEPT, OUTPUT_LIMIT = 5, 4096


def command(config: HealthConfig | None, shell: list[str] | None) -> list[str]:
    """The command of the check; empty when there is none, also where the first word says no kind of it, as dockerd."""
    test = (config.test if config else None) or []
    if not test or test[0] == "NONE":
        return []
    if test[0] == "CMD":
        return test[1:]
    if test[0] == "CMD-SHELL":
        return [*(as_list(shell) or ["/bin/sh", "-c"]), *test[1:2]]
    return []


def pause_before(config: HealthConfig, status: HealthStatus, up_ns: int) -> int:
    """Nanoseconds until the next check of a container that has been up for ``up_ns``."""
    if status is HealthStatus.STARTING and up_ns < config.start_period:
        return config.start_interval or START_INTERVAL
    return config.interval or INTERVAL


def judge(health: Health, config: HealthConfig, result: HealthResult, started_at: int) -> bool:
    """Take a result into account; returns whether the status changed."""
    before = health.status
    health.log = [*health.log[-(KEPT - 1) :], result]
    if result.exit_code == 0:
        health.failing_streak = 0
        health.status = HealthStatus.HEALTHY
    elif health.status is not HealthStatus.STARTING or result.start - started_at >= config.start_period:
        health.failing_streak += 1
        if health.failing_streak >= (config.retries or RETRIES):
            health.status = HealthStatus.UNHEALTHY
    return health.status != before


class HealthChecks(Struct, frozen=True, eq=False):
    """The checks of all running containers."""

    store: ContainerStore
    events: EventBus
    tasks: BackgroundTasks
    execs: ExecService
    counters: Counters
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def begin(self, container: Container, act: Act, *, fresh: bool) -> None:
        """Begin to check a running container; ``fresh``: it has just been started, its health is unknown."""
        self._stop(container)
        config = container.config.healthcheck
        if config is None or not command(config, container.config.shell):
            container.state.health = None
            return
        if fresh or container.state.health is None:
            container.state.health = Health(log=container.state.health.log if container.state.health else [])
        task = self.tasks.watch(self._run(container, config, container.state.health, act))
        self._running[container.id] = task

    def end(self, container: Container) -> None:
        """End the checks of a container that has ended or is paused."""
        if self._stop(container) and container.state.health is not None:
            container.state.health.status = HealthStatus.UNHEALTHY

    def _stop(self, container: Container) -> bool:
        task = self._running.pop(container.id, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        return task is not None

    async def _run(self, container: Container, config: HealthConfig, health: Health, act: Act) -> None:
        while True:
            up = time.time_ns() - container.state.started_at
            await asyncio.sleep(pause_before(config, health.status, up) / 1e9)
            result = await self._probe(container, config)
            if self._running.get(container.id) is not asyncio.current_task():
                return  # it ended meanwhile: what the check says of it has no meaning
            self.counters.health_checks += 1
            self.counters.failed_health_checks += result.exit_code != 0
            changed = judge(health, config, result, container.state.started_at)
            # A check that was lost in a power cut is made again: only what it changes is worth an fsync.
            self.store.save(container, durable=changed)
            if changed:
                self.events.of_container(container, f"health_status: {health.status}")
                if health.status is HealthStatus.UNHEALTHY and config.on_failure not in ("", "none"):
                    self.tasks.start(_act(container, config.on_failure, act))

    async def _probe(self, container: Container, config: HealthConfig) -> HealthResult:
        timeout = config.timeout or TIMEOUT
        words = command(config, container.config.shell)
        wanted = ExecConfig(cmd=words, attach_stdout=True, attach_stderr=True, user=container.config.user)
        start = time.time_ns()
        try:
            code, output, whole = await self.execs.run(container, wanted, timeout / 1e9, OUTPUT_LIMIT)
        except Overdue as e:
            before = f"Health check exceeded timeout ({durations.write(timeout)})" + (": " if e.output else "")
            code, output, whole = -1, before.encode() + e.output, e.whole
        except KetchError as e:
            code, output, whole = -1, e.message.encode(), True
        text = output.decode(errors="replace") + ("" if whole else "...")
        return HealthResult(start=start, end=time.time_ns(), exit_code=code, output=text)


async def _act(container: Container, action: str, act: Act) -> None:
    log.warning("container %s is unhealthy: %s it, as configured", container.id[:12], action)
    with contextlib.suppress(KetchError):  # it has ended by itself just now
        await act(container, action)
