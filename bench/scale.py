"""Measurements with many containers: memory, listing, counters, and a restart of the daemon beneath them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bench.measures import monitors, pss, shims

if TYPE_CHECKING:
    from tests.support.engines import Engine

_TICKS = os.sysconf("SC_CLK_TCK")
_POLITE = 'trap "exit 0" TERM; echo up; while :; do sleep 1000 & wait; done'
_AT_ONCE = 8


def start(engine: Engine, first: int, end: int) -> None:
    """Run the containers ``many<first>`` … ``many<end - 1>`` on the default network, eight at a time."""

    def some(offset: int) -> None:
        with contextlib.closing(engine.py()) as client:
            client.api.timeout = 300
            for number in range(first + offset, end, _AT_ONCE):
                made = client.api.create_container("busybox", ["sleep", "100000"], name=f"many{number}")
                client.api.start(made["Id"])

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(some, range(_AT_ONCE)))


def remove(engine: Engine) -> None:
    """Remove every container."""
    ids = engine.docker("ps", "-aq", timeout=120).out.split()

    def some(offset: int) -> None:
        for begin in range(offset, len(ids), 20 * _AT_ONCE):
            engine.docker("rm", "-f", *ids[begin : begin + 20], timeout=300)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(some, range(0, 20 * _AT_ONCE, 20)))


def memory_of_monitors(engine: Engine) -> float:
    """PSS in MiB of one container's guardian: monitor, or containerd-shim."""
    pids = monitors(engine) if engine.kind == "ketch" else shims(engine)
    return sum(pss(pid) for pid in pids) / len(pids) / 1024


def memory_of_daemon(engine: Engine) -> float:
    """RSS in MiB of ketchd, or of dockerd and its containerd."""
    total = 0
    for pid in daemons(engine):
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            total += next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))
    return total / 1024


def list_by_client(engine: Engine) -> float:
    """Seconds of ``docker ps -a``."""
    begin = time.perf_counter()
    engine.docker("ps", "-a", timeout=120)
    return time.perf_counter() - begin


def list_by_api(engine: Engine) -> float:
    """Seconds of ``GET /containers/json?all=1`` alone: until its last byte is read."""
    with contextlib.closing(engine.py()) as client:
        url = client.api._url("/containers/json")
        client.ping()
        begin = time.perf_counter()
        _ = client.api.get(url, params={"all": 1}).content
        return time.perf_counter() - begin


def cpu_of_stats(engine: Engine, program: str, seconds: float) -> float:
    """Percent of one core that the daemon spends while ``docker stats`` (or ``ketch stats``) shows every container."""
    command = [getattr(engine, program).program, "stats"]
    with subprocess.Popen(command, env=engine.environment(), stdout=subprocess.DEVNULL) as watching:
        try:
            time.sleep(4)  # until all streams are there
            begin, before = time.perf_counter(), _cpu_s(engine)
            time.sleep(seconds)
            return 100 * (_cpu_s(engine) - before) / (time.perf_counter() - begin)
        finally:
            watching.kill()


def restart(engine: Engine) -> float:
    """Seconds from the start of a new daemon until it answers, while containers run that the old one left."""
    engine.stop()
    return engine.start()


class Cycle:
    """A container that is stopped and started again; ``polite`` ones end at SIGTERM, others are killed at once."""

    def __init__(self, polite: bool) -> None:
        self.polite = polite
        self.name = "polite" if polite else "stubborn"
        self._starts: dict[str, int] = {}

    def make(self, engine: Engine) -> None:
        """Start it for the first time."""
        command = ["sh", "-c", _POLITE] if self.polite else ["sleep", "100000"]
        engine.docker("run", "-d", "--name", self.name, "busybox", *command)
        self._starts[engine.kind] = 1

    def __call__(self, engine: Engine) -> float:
        """Seconds of ``docker stop`` and ``docker start``."""
        # PID 1 ignores SIGTERM until it has set its trap.
        while self.polite and engine.docker("logs", self.name).out.count("up") < self._starts[engine.kind]:
            time.sleep(0.01)
        begin = time.perf_counter()
        engine.docker("stop", *(() if self.polite else ("-t", "0")), self.name)
        engine.docker("start", self.name)
        self._starts[engine.kind] += 1
        return time.perf_counter() - begin


def daemons(engine: Engine) -> list[int]:
    """The daemon's process; with dockerd also its containerd's."""
    assert engine.process is not None
    found = [engine.process.pid]
    if engine.kind == "dockerd":
        with open(os.path.join(engine.exec_root, "containerd", "containerd.pid"), encoding="ascii") as f:
            found.append(int(f.read()))
    return found


def _cpu_s(engine: Engine) -> float:
    """CPU time, user and system, of the daemon so far."""
    total = 0
    for pid in daemons(engine):
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            fields = f.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS
