"""ketchd, a monitor, or both are killed while another runtime has the container."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.programs import need
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


HELD = """#!/bin/sh
case " $* " in *" kill "*)
    touch {0}/begun
    while [ -e {0}/held ]; do sleep 0.02; done
    [ ! -e {0}/fails ] || exit 1
esac
exec {1} "$@"
"""


def test_a_signal_that_takes_its_time_holds_up_nobody(engine, other, tmp_path):
    """The container's monitor serves others meanwhile, whatever the runtime does; what it says in the end is told."""
    held = tmp_path / "runtime"
    held.write_text(HELD.format(tmp_path, need(other)))
    held.chmod(0o755)
    script = "trap 'echo heard' USR1; echo up; while :; do sleep 0.02; done"
    engine.ketch("run", "-d", "--name", "box", "--runtime", str(held), "busybox", "sh", "-c", script)
    until(lambda: engine.ketch("logs", "box").out == "up\n", "it is up")
    for fails in (False, True):
        (tmp_path / "begun").unlink(missing_ok=True)
        (tmp_path / "held").touch()
        with engine.ketch.piped("kill", "-s", "USR1", "box") as client:
            until((tmp_path / "begun").exists, "the runtime is at work")
            assert engine.ketch("exec", "box", "echo", "in").out == "in\n"
            if fails:
                (tmp_path / "fails").touch()
            (tmp_path / "held").unlink()
            assert client.wait() == fails
    until(lambda: engine.ketch("logs", "box").out == "up\nheard\n", "it has heard the first one")
    engine.ketch("kill", "box")  # this one goes to the process itself
    assert engine.inspect("box")["State"]["ExitCode"] == 137
