"""``--init``: what the program in front of a container's program does, with each runtime."""

from __future__ import annotations

import pytest

from tests.support.engines import Client
from tests.support.rawapi import Api
from tests.support.waiting import until

# An orphan that has ended is reaped; what it was is told.
SCRIPT = """
tr '\\0' ' ' </proc/1/cmdline; echo
(sleep 0.01 & exec true); sleep 0.1
while grep -q zombie /proc/[0-9]*/status 2>/dev/null; do :; done
echo $PPID; echo logged >/proc/1/fd/1
trap 'echo term; exit 9' TERM; echo up
while :; do sleep 0.02; done
"""


@pytest.mark.parametrize("user", ["0", "1234"])
def test_life(engine, runtime, user):
    engine.ketch(
        "run", "-d", "--name", "box", "--runtime", runtime, "--init", "-u", user, "busybox", "sh", "-c", SCRIPT
    )
    until(lambda: engine.ketch("logs", "box").out.endswith("up\n"), "it is up")
    lines = engine.ketch("logs", "box").out.splitlines()
    assert lines[0].startswith("/sbin/docker-init -- sh -c ")
    assert lines[-3:] == ["1", "logged", "up"]
    engine.ketch("stop", "-t", "20", "box")
    assert engine.inspect("box")["State"]["ExitCode"] == 9
    assert engine.ketch("logs", "box").out.endswith("term\n")


def test_terminal(engine, runtime):
    """What is typed reaches the program, which is in the foreground, and ends it alone."""
    script = "trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.02; done"
    command = ("run", "-it", "--rm", "--init", "--runtime", runtime, "busybox", "sh", "-c", script)
    with Client(engine, "ketch").terminal(*command) as t:
        t.expect("ready")
        t.send("\x03")
        t.expect("interrupted")
        assert t.wait() == 4


def test_no_such_program(engine, runtime):
    done = engine.ketch("run", "--rm", "--init", "--runtime", runtime, "busybox", "nope", check=False)
    assert (done.code, done.err) == (127, "docker-init: exec nope: no such file or directory\n")


def test_info(engine):
    assert Api(engine.socket).must("GET", "/info")["InitBinary"] == "ketch-init"


def test_user_namespace(engine):
    command = ("run", "--rm", "--init", "--userns", "auto", "busybox", "cat", "/proc/1/comm")
    assert engine.ketch(*command).out == "docker-init\n"
