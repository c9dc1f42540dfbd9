"""ketchd may die at any moment: no shell, log line or exit status depends on it."""

from __future__ import annotations

import json
import os
import select
import signal

import pytest

from tests.support.containers import SERVE, fetch
from tests.support.waiting import patient


@pytest.mark.parametrize("name", ["docker", "ketch"])
def test_terminal_survives_kill_of_the_daemon(own_engine, name):
    own_engine.start()
    own_engine.add_busybox()
    client = getattr(own_engine, name)
    with client.terminal("run", "-it", "--name", "tough", "busybox", "sh") as t:
        t.expect("/ # ")
        t.send("echo begin $((40+1))\n")
        t.expect("begin 41\r\n")
        assert client("ps", "--format", "{{.Names}}").out == "tough\n"  # by now the client's own requests are over
        own_engine.stop(signal.SIGKILL)
        t.send("echo still $((40+2))\n")
        t.expect("still 42\r\n")

        own_engine.start()
        assert client("ps", "--format", "{{.Names}} {{.State}}").out == "tough running\n"
        t.send("echo after $((40+3))\n")
        t.expect("after 43\r\n")
        own_engine.stop(signal.SIGKILL)
        t.send("echo again $((40+4)); exit 21\n")
        t.expect("again 44\r\n")
    own_engine.start()
    state = json.loads(client("inspect", "tough").out)[0]["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 21)
    assert client("wait", "tough").out == "21\n"
    logs = client("logs", "tough").out
    assert logs.index("still 42") < logs.index("after 43") < logs.index("again 44")


def test_logs_have_no_gap(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); usleep 1000; done; exit 5"
    own_engine.client("run", "-d", "--name", "counter", "busybox", "sh", "-c", script)
    with own_engine.docker.piped("logs", "-f", "counter") as logs:
        logs.expect("line 300\n")
        own_engine.stop(signal.SIGKILL)
    own_engine.start()
    assert own_engine.client("wait", "counter").out == "5\n"
    assert own_engine.client("logs", "counter").out.split("\n")[:-1] == [f"line {i}" for i in range(3000)]


def test_restart_by_request_keeps_containers(own_engine):
    """SIGTERM ends the daemon, not its containers; networks and published ports go on."""
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("run", "-d", "--name", "web", "-p", "127.0.0.1:0:80", *SERVE)
    port = int(own_engine.client("port", "web", "80").out.strip().rpartition(":")[2])
    assert fetch(port) == "moored\n"
    assert own_engine.stop() == 0
    if own_engine.user is None:  # a user's are copied by ketchd
        assert fetch(port) == "moored\n"
    own_engine.start()
    assert fetch(port) == "moored\n"
    assert own_engine.client("exec", "web", "cat", "/www/index.html").out == "moored\n"
    own_engine.client("restart", "-t", "0", "web")  # a port that was chosen by chance is chosen again
    port = int(own_engine.client("port", "web", "80").out.strip().rpartition(":")[2])
    assert fetch(port) == "moored\n"
    own_engine.client("rm", "-f", "web")
    assert own_engine.client("ps", "-aq").out == ""


def test_exit_while_the_daemon_is_away(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("run", "-d", "-i", "--name", "one", "busybox", "sh", "-c", "read x; exit 9")
    own_engine.client("run", "-d", "--name", "two", "busybox", "sleep", "1000")
    own_engine.client("exec", "-d", "two", "sh", "-c", "sleep 1000")
    pid = int(own_engine.client("inspect", "-f", "{{.State.Pid}}", "one").out)
    own_engine.stop(signal.SIGKILL)
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([pidfd], [], [], patient(10))
    os.close(pidfd)
    own_engine.start()
    assert own_engine.client("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "one").out == "exited 137\n"
    assert own_engine.client("exec", "two", "echo", "answers").out == "answers\n"
    assert len(own_engine.client("top", "two").out.splitlines()) == 3
