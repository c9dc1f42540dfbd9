"""ketchd, a monitor, or both are killed while another runtime has the container."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.run.runtimes import kept
from tests.support.waiting import until


@pytest.fixture
def box(own_engine, other):
    """A running container of another runtime, with a restart count that would show one."""
    own_engine.start()
    own_engine.add_busybox()
    script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"
    own_engine.ketch("run", "-d", "--name", "box", "--runtime", other, "busybox", "sh", "-c", script)
    until(lambda: "3\n" in own_engine.ketch("logs", "box").out, "it runs")
    return own_engine


def monitor(engine) -> int:
    with open(f"{engine.exec_root}/run/{engine.inspect('box')['Id']}/monitor.pid", encoding="ascii") as f:
        return int(f.read())


def test_kills(box):
    _daemon(box)
    _monitor(box)
    _both(box)


def _daemon(box):
    """The container goes on, without a gap in its log, and the next daemon has it."""
    pid = box.inspect("box")["State"]["Pid"]
    box.stop(signal.SIGKILL)
    box.start()
    assert box.inspect("box")["State"]["Pid"] == pid
    assert box.ketch("exec", "box", "echo", "in").out == "in\n"
    box.ketch("pause", "box")
    box.stop(signal.SIGKILL)
    box.start()
    assert box.inspect("box")["State"]["Status"] == "paused"
    box.ketch("unpause", "box")
    box.ketch("stop", "-t", "0", "box")
    lines = box.ketch("logs", "box").out.split()
    assert lines == [str(i) for i in range(len(lines))]
    assert kept(box) == []


def _monitor(box):
    """The container ends, and nothing of it is left: a start after that is like any other."""
    box.ketch("start", "box")
    pid = box.inspect("box")["State"]["Pid"]
    os.kill(monitor(box), signal.SIGKILL)
    until(lambda: box.inspect("box")["State"]["Status"] == "exited", "its end is known")
    assert box.inspect("box")["State"]["ExitCode"] == 137
    until(lambda: not os.path.exists(f"/proc/{pid}/exe"), "it has ended")
    until(lambda: kept(box) == [], "its runtime has forgotten it")


def _both(box):
    """The next daemon finds what is left, and ends it."""
    box.ketch("start", "box")
    assert box.ketch("exec", "box", "echo", "in").out == "in\n"
    first, one = box.inspect("box")["State"]["Pid"], monitor(box)
    box.stop(signal.SIGKILL)
    os.kill(one, signal.SIGKILL)
    assert len(kept(box)) == 1
    box.start()
    assert box.inspect("box")["State"]["Status"] == "exited"
    until(lambda: not os.path.exists(f"/proc/{first}/exe"), "it has ended")
    assert kept(box) == []
