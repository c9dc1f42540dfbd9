"""What is measured: each function does one thing once, on one engine, and returns one figure."""

from __future__ import annotations

import glob
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.engines import Client, Engine

RUN = ("run", "--rm", "busybox", "true")


def timed(client: Client, *args: str) -> float:
    """Seconds that one command of a client takes, its own start included."""
    begin = time.perf_counter()
    client(*args, timeout=120)
    return time.perf_counter() - begin


def run(engine: Engine) -> float:
    """``docker run --rm busybox true``, on the default bridge network."""
    return timed(engine.docker, *RUN)


def run_by_ketch(engine: Engine) -> float:
    """The same through Ketch's own command line."""
    return timed(engine.ketch, *RUN)


def execute(engine: Engine) -> float:
    """``docker exec box true`` in a running container."""
    return timed(engine.docker, "exec", "box", "true")


def forty_runs(engine: Engine) -> float:
    """Seconds for each of 40 runs, 8 at a time."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: timed(engine.docker, *RUN), range(40)))
    return (time.perf_counter() - begin) / 40


def log(engine: Engine, path: str) -> float:
    """Seconds to write the file's content to stdout, into the log, until ``docker wait`` answers."""
    engine.docker("rm", "-f", "talker", check=False)
    begin = time.perf_counter()
    engine.docker("run", "-d", "--name", "talker", "-v", f"{path}:/data:ro", "busybox", "cat", "/data", timeout=120)
    engine.docker("wait", "talker", timeout=120)
    return time.perf_counter() - begin


def read_log(engine: Engine) -> float:
    """Seconds for ``docker logs`` of what was logged last, thrown away."""
    begin = time.perf_counter()
    command = [engine.docker.program, "logs", "talker"]
    subprocess.run(command, env=engine.environment(), stdout=subprocess.DEVNULL, check=True, timeout=120)
    return time.perf_counter() - begin


def memory_of_monitors(engine: Engine, count: int) -> float:
    """PSS in MiB of one container's guardian (monitor, or containerd-shim) while ``count`` containers run."""
    with ThreadPoolExecutor(4) as pool:
        names = [f"many{n}" for n in range(count)]
        list(
            pool.map(lambda n: engine.docker("run", "-d", "--name", n, "busybox", "sleep", "10000", timeout=120), names)
        )
    pids = _monitors(engine) if engine.kind == "ketch" else _shims(engine)
    total = sum(_pss(pid) for pid in pids)
    for start in range(0, count, 20):
        engine.docker("rm", "-f", *names[start : start + 20], timeout=120)
    return total / len(pids) / 1024


def _monitors(engine: Engine) -> list[str]:
    pids = []
    for path in glob.glob(f"{engine.exec_root}/run/*/monitor.pid"):
        with open(path, encoding="ascii") as f:
            pids.append(f.read().strip())
    return pids


def _shims(engine: Engine) -> list[str]:
    pids = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as f:
                line = f.read()
        except OSError:
            continue
        if "containerd-shim" in line and engine.exec_root in line:
            pids.append(pid)
    return pids


def _pss(pid: str) -> int:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Pss:"))
