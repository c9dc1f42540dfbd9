"""The measurements: each function does one thing once, on one engine, and returns one figure."""

from __future__ import annotations

import contextlib
import glob
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.engines import Client, Engine

RUN = ("run", "--rm", "busybox", "true")


def timed(client: Client, *args: str) -> float:
    """Seconds that one command of a client takes, its own start included."""
    begin = time.perf_counter()
    client(*args, timeout=120)
    return time.perf_counter() - begin


def run(engine: Engine) -> float:
    """``docker run --rm busybox true``, on the default bridge network."""
    return timed(engine.docker, *RUN)


def client_alone(engine: Engine) -> float:
    """What every command of ``docker`` takes before it says anything to an engine."""
    return timed(engine.docker, "--version")


def start_by_api(engine: Engine) -> float:
    """Seconds of ``POST /containers/{id}/start``, on a connection that is open: no command, no attached streams."""
    with contextlib.closing(engine.py()) as client:
        container = client.containers.create("busybox", ["sleep", "1000"])
        begin = time.perf_counter()
        container.start()
        took = time.perf_counter() - begin
        container.remove(force=True)
    return took


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


def network_cost(engine: Engine, count: int) -> float:
    """Seconds that the default network adds to ``docker run --rm busybox true``: the difference of two medians."""
    plain, networked = [], []
    for number in range(count + 1):
        without = timed(engine.docker, "run", "--rm", "--network", "none", "busybox", "true")
        with_it = timed(engine.docker, *RUN)
        if number:
            plain.append(without)
            networked.append(with_it)
    return statistics.median(networked) - statistics.median(plain)


def publish_one_of_many(engine: Engine, count: int, already: int) -> float:
    """Seconds to publish one port and take it back while ``already`` others are published.

    A running container with a port gets a network that leads outside and loses it again, through the API; the same
    with a container without a port is subtracted.
    """
    engine.docker("network", "create", "--internal", "inside")
    engine.docker("network", "create", "outside")
    many = f"20000-{20000 + already - 1}"
    engine.docker("run", "-d", "--name", "many", "-p", f"{many}:{many}", "busybox", "sleep", "10000", timeout=300)
    engine.docker("run", "-d", "--name", "plain", "--network", "inside", "busybox", "sleep", "10000")
    engine.docker("run", "-d", "--name", "porty", "--network", "inside", "-p", "19999:80", "busybox", "sleep", "10000")
    took: dict[str, list[float]] = {"plain": [], "porty": []}
    with contextlib.closing(engine.py()) as client:
        network = client.networks.get("outside")
        for number in range(count + 1):
            for name, samples in took.items():
                begin = time.perf_counter()
                network.connect(name)
                network.disconnect(name)
                if number:
                    samples.append(time.perf_counter() - begin)
    engine.docker("rm", "-f", "many", "plain", "porty", timeout=300)
    engine.docker("network", "rm", "inside", "outside")
    return statistics.median(took["porty"]) - statistics.median(took["plain"])


def name_lookup(engine: Engine, count: int) -> float:
    """Median seconds of one question to 127.0.0.11, asked from inside a container's network."""
    engine.docker("network", "create", "names")
    engine.docker("run", "-d", "--name", "asker", "--network", "names", "busybox", "sleep", "10000")
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "asker").out.strip()
    question = b"\0\1\1\0\0\1\0\0\0\0\0\0\5asker\0\0\1\0\1"
    script = (
        "import socket, time, statistics\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect(('127.0.0.11', 53))\n"
        "took = []\n"
        f"for _ in range({count}):\n"
        f"    b = time.perf_counter(); s.send({question!r}); s.recv(512); took.append(time.perf_counter() - b)\n"
        "print(statistics.median(took))\n"
    )
    command = ["nsenter", "-t", pid, "-n", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    engine.docker("rm", "-f", "asker")
    engine.docker("network", "rm", "names")
    return float(done.stdout)


def monitors(engine: Engine) -> list[str]:
    """Pids of Ketch's monitors."""
    pids = []
    for path in glob.glob(f"{engine.exec_root}/run/*/monitor.pid"):
        with open(path, encoding="ascii") as f:
            pids.append(f.read().strip())
    return pids


def shims(engine: Engine) -> list[str]:
    """Pids of dockerd's containerd-shims."""
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


def pss(pid: str) -> int:
    """Proportional set size in KiB."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Pss:"))
