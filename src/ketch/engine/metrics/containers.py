"""Metrics of the containers, one sample or a few for each that exists.

All but one have no label of the container but its name: what else tells it apart is in ``ketch_container_info``, so
that a container that is made anew under its name goes on with the series that it had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ketch.notation.metrics.exposition import Family, Point

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.engine.model.records import Container
    from ketch.engine.model.usage import Usage

_PREFIX = "ketch_container_"
_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"


class _Value(NamedTuple):
    """One family with one sample a container; None: there is none of this one."""

    name: str
    kind: str
    text: str
    read: Callable[[Container, Usage], float | None]


def _running(value: Callable[[Usage], float]) -> Callable[[Container, Usage], float | None]:
    return lambda container, usage: value(usage) if container.state.running else None


_VALUES = (
    _Value("running", "gauge", "1 of a container that runs, paused or not, 0 of others.", lambda c, _: c.state.running),
    _Value(
        "restarts_total",
        "counter",
        "Restarts by the restart policy since the container was started by somebody.",
        lambda c, _: c.restart_count,
    ),
    _Value(
        "start_time_seconds",
        "gauge",
        "When it was started last, in seconds since 1970.",
        lambda c, _: c.state.started_at / 1e9 if c.state.started_at else None,
    ),
    _Value(
        "exit_code",
        "gauge",
        "Exit code of a container that has ended.",
        lambda c, _: c.state.exit_code if c.state.finished_at and not c.state.running else None,
    ),
    _Value(
        "oom_killed",
        "gauge",
        "1 when memory ran out in its last run and one of its processes was ended.",
        lambda c, _: c.state.oom_killed,
    ),
    _Value("cpu_seconds_total", "counter", "CPU time of its processes.", _running(lambda u: u.cpu_ns / 1e9)),
    _Value(
        "memory_bytes",
        "gauge",
        "Memory without the page cache that can be had back.",
        _running(lambda u: u.memory_bytes),
    ),
    _Value(
        "memory_limit_bytes",
        "gauge",
        "Its limit of memory, or what the machine has.",
        _running(lambda u: u.memory_limit_bytes),
    ),
    _Value("pids", "gauge", "Processes and threads.", _running(lambda u: u.pids)),
    _Value(
        "pids_limit",
        "gauge",
        "Limit of processes and threads, where there is one.",
        lambda c, u: u.pids_limit or None if c.state.running else None,
    ),
    _Value("block_read_bytes_total", "counter", "Bytes read from block devices.", _running(lambda u: u.read_bytes)),
    _Value("block_written_bytes_total", "counter", "Bytes written to them.", _running(lambda u: u.written_bytes)),
)
_DIRECTIONS = {"rx": "receive", "tx": "transmit"}
_COUNTED = {"bytes": "Bytes", "packets": "Packets", "errors": "Packets with errors", "dropped": "Packets dropped"}


def families(containers: Sequence[Container], usages: Sequence[Usage]) -> list[Family]:
    """The metrics of containers whose usage is known, in the same order."""
    pairs = list(zip(containers, usages, strict=True))
    found = [_information(containers), _states(containers), _health(containers)]
    for value in _VALUES:
        samples = []
        for container, usage in pairs:
            number = value.read(container, usage)
            if number is not None:
                samples.append(Point({"name": container.name}, number if isinstance(number, float) else int(number)))
        found.append(Family(_PREFIX + value.name, value.kind, value.text, samples))
    return [*found, *_networks(pairs)]


def _information(containers: Sequence[Container]) -> Family:
    samples = []
    for container in containers:
        labels = container.config.labels or {}
        facts = {
            "name": container.name,
            "id": container.id,
            "image": container.image_ref,
            "project": labels.get(_PROJECT, ""),
            "service": labels.get(_SERVICE, ""),
        }
        samples.append(Point(facts, 1))
    return Family(
        f"{_PREFIX}info", "gauge", "1, with the container's id and image, its Compose project and service.", samples
    )


def _states(containers: Sequence[Container]) -> Family:
    samples = [Point({"name": c.name, "state": str(c.state.status)}, 1) for c in containers]
    return Family(f"{_PREFIX}state", "gauge", "1, with the state that the container is in.", samples)


def _health(containers: Sequence[Container]) -> Family:
    samples = [
        Point({"name": c.name, "status": str(c.state.health.status)}, 1)
        for c in containers
        if c.state.health is not None and c.state.running
    ]
    return Family(f"{_PREFIX}health", "gauge", "1, with the status that its healthchecks gave it.", samples)


def _networks(pairs: Sequence[tuple[Container, Usage]]) -> list[Family]:
    found = []
    for counted, text in _COUNTED.items():
        for short, long in _DIRECTIONS.items():
            samples = [
                Point({"name": container.name, "interface": interface}, counters.get(f"{short}_{counted}", 0))
                for container, usage in pairs
                for interface, counters in usage.networks.items()
            ]
            name = f"{_PREFIX}network_{long}_{counted}_total"
            found.append(Family(name, "counter", f"{text} on its interfaces, {long}.", samples))
    return found
