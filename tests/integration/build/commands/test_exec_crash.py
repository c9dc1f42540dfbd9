"""A daemon that dies while a build's command is under way: the next start leaves nothing of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.boxes.crash_box import running
from tests.support.boxes.crash_matrix import BUILDS
from tests.support.engines import NOWHERE, Engine
from tests.support.leaks import Census
from tests.support.run.session import MARK
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only


def daemon(engine: Engine, fault: str = "") -> subprocess.Popen[bytes]:
    """A process with an engine on these roots that runs a command (`tests.support.boxes.build_box`)."""
    argv = engine.command()
    environment = {**os.environ, **NOWHERE, MARK: engine.name, "KETCH_FAULT": fault}
    script = "echo ready; echo x >/written; sleep 0.1" if fault else "echo ready; sleep 1000 & sleep 1000"
    command = [sys.executable, "-m", "tests.support.boxes.build_box", script, *argv[argv.index("--data-root") :]]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


def directories(engine: Engine) -> list[str]:
    """The directories of commands and unfinished layers under the engine's roots."""
    found = []
    for place in (f"{engine.data_root}/containers", f"{engine.exec_root}/run", f"{engine.data_root}/layers"):
        found += [name for name in os.listdir(place) if name.startswith(("build-", "."))]
    return found


def test_each_point():
    """At every failpoint, and while a command runs: each next daemon removes what the last one left."""
    engine = Engine("ketch", suffix="y")
    before = Census.take(engine.name)
    try:
        for point in BUILDS:
            process = daemon(engine, point)
            out, _ = process.communicate(timeout=patient(30))
            assert process.returncode == -9, (point, out)
            assert directories(engine) != [], point
        process = daemon(engine)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        [name] = [name for name in directories(engine) if name.startswith("build-")][:1]
        assert len(set(directories(engine))) == 1, "what former daemons left is there"
        process.kill()
        process.communicate()
        with open(f"{engine.exec_root}/run/{name}/monitor.pid", encoding="ascii") as f:
            monitor = int(f.read())
        assert running(monitor), "a command goes on until somebody ends it"
        engine.start()
        until(lambda: directories(engine) == [], "its directories are removed")
        assert not running(monitor)
        assert engine.client("ps", "-aq").out == ""
    finally:
        if engine.process is not None:
            engine.stop()
        engine.delete()
    assert before.leaks() == []
