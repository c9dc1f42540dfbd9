"""Metrics of an engine and its containers, as Prometheus reads them.

Those of the engine have dockerd's names where they mean what dockerd's do.  Nothing is counted ahead: a scrape reads
what is there, in one pass over the containers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.engine import system
from ketch.engine.metrics import containers, process
from ketch.engine.model.records import Status
from ketch.engine.stats.counters import BOUNDS_S
from ketch.notation.metrics import exposition
from ketch.notation.metrics.exposition import Family, Point

if TYPE_CHECKING:
    from ketch.engine.engine import Engine

    Families = list[Family]

_PREFIX = "engine_daemon_"
_REASONS = {"canceled": "build_canceled", "error": "build_failed"}


class EngineMetrics:
    """The metrics of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sampler = engine.containers.sampler()

    async def text(self) -> str:
        """All of them, in the exposition format."""
        found = self._engine.containers.list()
        usages = await self._sampler.sample(found)
        own = [*self._about(), self._states(), *self._activity(), *self._builds()]
        return exposition.write([*own, *containers.families(found, usages), *process.families()])

    def _about(self) -> Families:
        machine, version = system.machine(), self._engine.system.version()
        labels = {
            "architecture": machine["Architecture"],
            "commit": version["GitCommit"],
            "daemon_id": self._engine.system.engine_id,
            "graphdriver": self._engine.system.snapshots.name,
            "kernel": machine["KernelVersion"],
            "os": machine["OperatingSystem"],
            "os_type": machine["OSType"],
            "os_version": machine["OSVersion"],
            "version": version["Version"],
        }
        return [
            _gauge("engine_info", "1, with what the engine and its machine are.", Point(labels, 1)),
            _gauge("engine_cpus_cpus", "Processors of the machine.", Point({}, machine["NCPU"])),
            _gauge("engine_memory_bytes", "Memory of the machine.", Point({}, machine["MemTotal"])),
        ]

    def _states(self) -> Family:
        states = [c.state.status for c in self._engine.containers.list()]
        counts = {"paused": states.count(Status.PAUSED), "running": states.count(Status.RUNNING)}
        counts["stopped"] = len(states) - sum(counts.values())
        samples = [Point({"state": state}, count) for state, count in counts.items()]
        return _gauge("container_states_containers", "Containers by state.", *samples)

    def _activity(self) -> Families:
        counters, events = self._engine.counters, self._engine.events
        durations = [
            sample
            for action, histogram in counters.actions.items()
            for sample in exposition.of_histogram({"action": action}, BOUNDS_S, histogram.buckets, histogram.total_s)
        ]
        return [
            Family(f"{_PREFIX}container_actions_seconds", "histogram", "Durations of what succeeded.", durations),
            _counter("events_total", "Events since the start.", events.published),
            _gauge("events_subscribers_total", "Clients that listen to events.", Point({}, events.listeners)),
            _counter("health_checks_total", "Healthchecks that were run.", counters.health_checks),
            _counter("health_checks_failed_total", "Healthchecks that failed.", counters.failed_health_checks),
        ]

    def _builds(self) -> Families:
        history = self._engine.builds.history
        failed = [Point({"reason": _REASONS[status]}, count) for status, count in history.failures.items()]
        return [
            Family("builder_builds_triggered_total", "counter", "Builds that were begun.", [Point({}, history.count)]),
            Family("builder_builds_failed_total", "counter", "Builds that made nothing, by reason.", failed),
        ]


def _gauge(name: str, text: str, *samples: Point) -> Family:
    return Family(_PREFIX + name, "gauge", text, list(samples))


def _counter(name: str, text: str, value: int) -> Family:
    return Family(_PREFIX + name, "counter", text, [Point({}, value)])
