"""Cleaning up after a killed process of the test run, and nothing else."""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import sys

import pytest

from tests.support.boxes.crash_box import running
from tests.support.run import session
from tests.support.source.project import ROOT
from tests.support.waiting import until

# It leaves a process that carries the mark, one in a (frozen) cgroup without it, a deep cgroup, and a root.
_SCRIPT = """
import glob, os, subprocess, sys
from tests.support.boxes.crash_box import running
from tests.support.run import session
session.guard()
marked = subprocess.Popen(["sleep", "1000"], start_new_session=True)
engine = subprocess.Popen(["sleep", "1000"], env={session.MARK: session.SESSION + "1a"}, start_new_session=True)
bare = subprocess.Popen(["sleep", "1000"], env={}, start_new_session=True)
(parent,) = [p for p in ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup") if os.path.exists(p + "/cgroup.procs")][:1]
group = f"{parent}/{session.SESSION}1a"
os.makedirs(f"{group}/below/it")
with open(f"{group}/below/cgroup.procs", "w") as f:
    f.write(str(bare.pid))
freeze = f"{group}/below/freezer.state"
with open(freeze if os.path.exists(freeze) else f"{group}/below/cgroup.freeze", "w") as f:
    f.write("FROZEN" if f.name == freeze else "1")
os.makedirs(f"/tmp/{session.SESSION}1a/data")
print(marked.pid, engine.pid, bare.pid, group, flush=True)
input()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="cgroups need root")
def test_orphans_of_a_killed_process_are_removed():
    environment = {name: value for name, value in os.environ.items() if name != session.MARK}
    other = subprocess.Popen(["sleep", "1000"], env={session.MARK: session.SESSION + "9z"})
    try:
        with subprocess.Popen(
            [sys.executable, "-c", _SCRIPT], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as one:
            *pids, group = one.stdout.readline().decode().split()
            assert all(map(running, map(int, pids))) and os.path.isdir(group)
            one.send_signal(signal.SIGKILL)

        def left() -> list[str]:
            return [
                *(pid for pid in pids if running(int(pid))),
                *glob.glob(f"/tmp/kt{one.pid}-*"),
                *glob.glob(group),
            ]

        until(lambda: left() == [], lambda: f"it is there: {left()}")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
