"""Measurements of starts: by the API, many in turn and at once, and by the OCI command line beside runc and crun."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.support.engines import BIN, busybox_tar

from ketch.linux import mount, ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engines import Engine

RUNTIMES = ("runc", "crun")
_UNIFIED = "/sys/fs/cgroup/unified"


def in_turn(engine: Engine, count: int, network: str) -> list[float]:
    """Seconds of so many starts by the API, one after the other, on an open connection."""
    took = []
    with contextlib.closing(engine.py()) as client:
        for _ in range(count):
            container = client.containers.create("busybox", ["sleep", "1000"], network_mode=network)
            begin = time.perf_counter()
            container.start()
            took.append(time.perf_counter() - begin)
            container.remove(force=True)
    return took


def at_once(engine: Engine, count: int) -> list[float]:
    """Seconds of each of so many starts by the API that begin together."""
    with contextlib.ExitStack() as undo:
        clients = [undo.enter_context(contextlib.closing(engine.py())) for _ in range(count)]
        made = [client.containers.create("busybox", ["sleep", "1000"]) for client in clients]

        def start(number: int) -> float:
            begin = time.perf_counter()
            made[number].start()
            return time.perf_counter() - begin

        with ThreadPoolExecutor(count) as pool:
            took = list(pool.map(start, range(count)))
            list(pool.map(lambda container: container.remove(force=True), made))
    return took


def percentile(samples: list[float], part: float) -> float:
    """The value that so large a part of the samples does not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def by_command_line(rounds: int) -> dict[str, float]:
    """Median seconds of ``run`` of ``true`` by ketch-runtime and by those of the machine's other runtimes that can."""
    with _bundle() as bundle:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            try:
                _hide_unified()
                with open(writer, "w", encoding="utf-8") as f:
                    json.dump(_rounds(bundle, rounds), f)
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader, encoding="utf-8") as f:
            text = f.read()
        os.waitpid(pid, 0)
    return {name: float(value) for name, value in json.loads(text or "{}").items()}


def _rounds(bundle: str, rounds: int) -> dict[str, float]:
    commands = {"ketch-runtime": f"{BIN}/ketch-runtime"}
    commands |= {name: path for name in RUNTIMES if (path := shutil.which(name))}
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, path in commands.items():
            begin = time.perf_counter()
            done = subprocess.run([path, "run", f"bench-{name}"], cwd=bundle, capture_output=True, check=False)
            if done.returncode == 0 and number:
                samples[name].append(time.perf_counter() - begin)
    return {name: statistics.median(found) for name, found in samples.items() if found}


def _hide_unified() -> None:
    """Leave a hybrid machine's unified hierarchy out of this process's sight, in which there is no controller.

    crun refuses such machines.
    """
    ns.unshare(ns.CLONE_NEWNS)
    mount.mount(None, "/", None, mount.MS_PRIVATE | mount.MS_REC)
    if os.path.ismount(_UNIFIED):
        mount.umount2(_UNIFIED, mount.MNT_DETACH)


@contextlib.contextmanager
def _bundle() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="kb-") as place:
        os.mkdir(f"{place}/rootfs")
        with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as tar:
            tar.extractall(f"{place}/rootfs", filter="fully_trusted")
        subprocess.run([f"{BIN}/ketch-runtime", "spec", "--bundle", place], check=True)
        path = f"{place}/config.json"
        with open(path, encoding="utf-8") as f:
            document = json.load(f)
        document["ociVersion"] = "1.0.2"  # which runtimes of older distributions know
        document["process"] |= {"terminal": False, "args": ["true"]}
        with open(path, "w", encoding="utf-8") as f:
            json.dump(document, f)
        yield place
