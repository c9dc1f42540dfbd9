"""The death of a monitor, of the launcher, and exits without a daemon."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess

import pytest

from ketch.storage.database.mark import boot_id
from tests.support.boxes.crash_box import monitored, pids_of, read, running
from tests.support.rawapi import Api
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only


@pytest.fixture
def alone(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    return own_engine


def state(engine, name: str) -> dict:
    return json.loads(engine.client("inspect", name).out)[0]


def cgroup(engine, name: str) -> str:
    root = "/sys/fs/cgroup/freezer" if os.path.isdir("/sys/fs/cgroup/freezer") else "/sys/fs/cgroup"
    return f"{root}/{engine.name}/{state(engine, name)['Id']}"


def monitor_of(engine, name: str) -> int:
    return int(read(f"{engine.exec_root}/run/{state(engine, name)['Id']}/monitor.pid"))


# One process that has left its parent, its session and (with the host's pids) every way to be found but the cgroup.
ESCAPED = ("busybox", "sh", "-c", "(setsid sh -c 'sleep 54321 & sleep 54321' &); echo up; exec sleep 12345")


def test_killed_monitor(alone):
    alone.client("run", "-d", "--pid", "host", "--name", "tough", "-p", "127.0.0.1:0:80", *ESCAPED)
    path, monitor = cgroup(alone, "tough"), monitor_of(alone, "tough")
    until(lambda: len(pids_of(path)) >= 3, "its processes do not come")
    alone.client("run", "-d", "--name", "other", "busybox", "sleep", "1000")
    with (
        alone.docker.piped("wait", "tough") as wait,
        alone.docker.piped("attach", "tough") as attached,
        alone.docker.piped("exec", "tough", "sh", "-c", "echo in; sleep 1000") as exec_,
    ):
        exec_.expect("in\n")
        pids = pids_of(path)
        os.kill(monitor, signal.SIGKILL)
        wait.expect("137\n")
        assert wait.wait() == 0
        attached.wait()
        exec_.wait()
    found = state(alone, "tough")
    assert (found["State"]["Status"], found["State"]["ExitCode"]) == ("exited", 137)
    assert found["NetworkSettings"]["IPAddress"] == ""
    assert [pid for pid in pids if running(pid)] == []
    assert not os.path.exists(path)
    assert all(not json.loads(alone.client("inspect", i).out)[0]["Running"] for i in found["ExecIDs"] or [])
    assert state(alone, "other")["State"]["Running"]
    alone.client("start", "tough")
    assert state(alone, "tough")["State"]["Running"]


@pytest.mark.parametrize("policy", ["no", "on-failure:3"])
def test_monitor_killed_while_the_daemon_is_away(alone, policy):
    alone.client("run", "-d", "--pid", "host", "--name", "tough", "--restart", policy, *ESCAPED)
    path, monitor = cgroup(alone, "tough"), monitor_of(alone, "tough")
    until(lambda: len(pids_of(path)) >= 3, "its processes do not come")
    pids = pids_of(path)
    alone.stop(signal.SIGKILL)
    os.kill(monitor, signal.SIGKILL)
    alone.start()
    until(lambda: not any(map(running, pids)), "its processes live")
    if policy == "no":
        found = state(alone, "tough")["State"]
        assert (found["Status"], found["ExitCode"]) == ("exited", 137)
        assert not os.path.exists(path)
    else:
        until(lambda: state(alone, "tough")["State"]["Running"], "it does not come back")
        assert state(alone, "tough")["RestartCount"] == 1


def test_killed_launcher(alone):
    alone.client("run", "-d", "--name", "before", "busybox", "sleep", "1000")
    children = [p for p in os.listdir("/proc") if p.isdigit() and _parent(p) == alone.process.pid]
    launchers = [p for p in children if read(f"/proc/{p}/cmdline").startswith(b"ketch-launcher")]
    assert len(launchers) == 1
    os.kill(int(launchers[0]), signal.SIGKILL)
    assert alone.client("run", "--rm", "busybox", "echo", "again").out == "again\n"
    assert state(alone, "before")["State"]["Running"]


def _parent(pid: str) -> int:
    try:
        return int(read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def test_rm_that_nobody_saw(alone):
    with alone.docker.piped(
        "run", "--rm", "-v", "/data", "--name", "brief", "busybox", "sh", "-c", "echo up; sleep 1000"
    ) as run:
        run.expect("up\n")
        pid = state(alone, "brief")["State"]["Pid"]
        assert len(alone.client("volume", "ls", "-q").out.split()) == 1
        alone.stop(signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        assert run.wait() == 137  # its monitor has answered
    alone.start()
    assert alone.client("ps", "-aq").out == ""
    assert alone.client("volume", "ls", "-q").out == ""


def test_restart_policies_follow_docker(alone):
    for policy in ("always", "unless-stopped", "no"):
        alone.client("run", "-d", "--name", f"{policy}-stopped", "--restart", policy, "busybox", "sleep", "1000")
        alone.client("run", "-d", "--name", f"{policy}-killed", "--restart", policy, "busybox", "sleep", "1000")
        alone.client("kill", f"{policy}-stopped")
    pids = [state(alone, f"{policy}-killed")["State"]["Pid"] for policy in ("always", "unless-stopped", "no")]
    alone.stop(signal.SIGKILL)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(running, pids)), "they do not die")
    alone.start()
    until(lambda: len(alone.client("ps", "-q").out.split()) == 3, "not all come back")
    up = set(alone.client("ps", "--format", "{{.Names}}").out.split())
    assert up == {"always-stopped", "always-killed", "unless-stopped-killed"}


def test_a_count_of_failures_is_kept(alone):
    """The policy's three restarts are three in all, however many daemons have counted."""
    alone.client("run", "-d", "--name", "bad", "--restart", "on-failure:3", "busybox", "sh", "-c", "echo try; exit 1")
    api = Api(alone.socket)  # which looks before 0.4 s are over and it is tried for the last time
    until(lambda: api.must("GET", "/containers/bad/json")["RestartCount"] >= 2, "it is not tried again")
    alone.stop(signal.SIGKILL)
    alone.start()
    until(lambda: state(alone, "bad")["State"]["Status"] == "exited", "it is tried for ever")
    assert state(alone, "bad")["RestartCount"] == 3
    assert alone.client("logs", "bad").out == "try\n" * 4


def test_exec_root_is_wiped(alone):
    script = "i=0; while :; do echo n $i; i=$((i+1)); usleep 20000; done"
    alone.client("run", "-d", "--name", "kept", "busybox", "sh", "-c", script)
    pid = state(alone, "kept")["State"]["Pid"]
    alone.stop(signal.SIGKILL)
    shutil.rmtree(alone.exec_root)
    alone.start()
    found = state(alone, "kept")["State"]
    assert (found["Status"], found["Pid"]) == ("running", pid)
    assert alone.client("exec", "kept", "echo", "hears").out == "hears\n"
    lines = alone.client("logs", "kept").out.splitlines()
    assert lines == [f"n {i}" for i in range(len(lines))]
    alone.client("stop", "-t", "0", "kept")
    assert state(alone, "kept")["State"]["ExitCode"] == 137
    alone.client("start", "kept")


def test_exit_record_that_nobody_can_read(alone):
    alone.client("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    found = state(alone, "one")
    alone.stop(signal.SIGKILL)
    os.kill(found["State"]["Pid"], signal.SIGKILL)
    record = f"{alone.exec_root}/run/{found['Id']}/exit.json"
    until(lambda: os.path.exists(record) and found["Id"] not in monitored(), "no exit record comes")
    with open(record, "w", encoding="utf-8") as f:
        f.write('{"code": ')
    with open(f"{alone.data_root}/containers/{found['Id']}/bundle/config.json", "w", encoding="utf-8") as f:
        f.write("not JSON")
    alone.start()
    assert state(alone, "one")["State"]["ExitCode"] == 137
    assert record in alone.log()
    alone.client("start", "one")


def test_killed_in_the_middle_of_a_rotation(own_engine):
    trace = os.path.join(own_engine.root, "trace")
    own_engine.settings = {"KETCH_FAULT": "monitor.log-rotated:2", "KETCH_FAULT_TRACE": trace}
    own_engine.start()
    own_engine.add_busybox()
    script = "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; sleep 1000"
    limits = ("--log-opt", "max-size=10k", "--log-opt", "max-file=5")
    own_engine.client("run", "-d", "--name", "talker", *limits, "busybox", "sh", "-c", script)
    until(lambda: os.path.exists(trace), "the log is not rotated")
    until(lambda: state(own_engine, "talker")["State"]["Status"] == "exited", "its end is not noticed")
    own_engine.settings = {}
    own_engine.stop(signal.SIGKILL)
    own_engine.start()
    lines = own_engine.client("logs", "talker").out.splitlines()
    first = int(lines[0].split()[1])
    assert lines == [f"line {i}" for i in range(first, first + len(lines))]
    own_engine.client("start", "talker")
    until(lambda: "line 4999" in own_engine.client("logs", "talker").out, "it does not log any more")


def test_killed_while_it_takes_its_networks_down(own_engine):
    trace = os.path.join(own_engine.root, "trace")
    own_engine.settings = {"KETCH_FAULT": "daemon.networks-down", "KETCH_FAULT_TRACE": trace}
    own_engine.start()
    own_engine.add_busybox()
    assert own_engine.client("run", "--rm", "busybox", "echo", "one").out == "one\n"
    assert own_engine.stop() == -9
    assert os.path.exists(trace)
    own_engine.settings = {}
    own_engine.start()
    assert own_engine.client("run", "--rm", "busybox", "echo", "two").out == "two\n"


@pytest.mark.parametrize("point", ["monitor.forked", "monitor.created-sent"])
def test_what_a_killed_monitor_has_forked_ends_with_the_start(own_engine, point):
    """A fork that goes on for a moment would make the cgroup after it was looked for; here one goes on for long."""
    switch = os.path.join(own_engine.root, "switch")
    own_engine.settings = {"KETCH_FAULT": f"@{switch}"}
    own_engine.start()
    own_engine.add_busybox()
    made = own_engine.client("create", "--name", "made", "busybox", "sleep", "1000").out.strip()
    with subprocess.Popen([f"ketch-monitor {made}"], executable="/bin/cat", stdin=subprocess.PIPE) as fork:
        with open(switch, "w", encoding="ascii") as f:
            f.write(point)
        try:
            assert own_engine.client("start", "made", check=False).code == 1
            assert fork.wait(patient(10)) == -signal.SIGKILL
        finally:
            fork.kill()
    os.truncate(switch, 0)
    own_engine.client("start", "made")


def test_a_begun_stop_is_not_undone(alone):
    """ketchd dies between the signal and the exit: the policy must not bring back what a user wants down."""
    alone.stop()
    alone.settings = {"KETCH_FAULT": "stop.signalled"}
    alone.start()
    trap = "trap 'exit 0' TERM; echo up; while :; do usleep 10000; done"
    alone.client("run", "-d", "--name", "down", "--restart", "unless-stopped", "busybox", "sh", "-c", trap)
    until(lambda: alone.client("logs", "down").out == "up\n", "it does not come up")
    status, _ = Api(alone.socket)("POST", "/containers/down/stop")
    assert (status, alone.process.wait(patient(10))) == (0, -9)
    alone.settings = {}
    alone.process = None
    alone.start()
    until(lambda: state(alone, "down")["State"]["Status"] == "exited", "it does not end")


@pytest.mark.parametrize(("boot", "policy", "left"), [("this", "always", "created"), ("other", "no", "exited 137")])
def test_a_start_of_which_only_the_begin_is_on_the_disk(own_engine, boot, policy, left):
    """What a power cut leaves of an acknowledged start: the container ran.  Without one, it has not been started."""
    own_engine.settings = {"KETCH_FAULT": "start.running"}
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("create", "--name", "begun", "--restart", policy, "busybox", "sleep", "1000")
    assert own_engine.client("start", "begun", check=False).code == 1
    assert own_engine.stop() == -signal.SIGKILL
    with contextlib.closing(sqlite3.connect(f"{own_engine.data_root}/ketch.db")) as db, db:
        ident, record = db.execute("SELECT id, record FROM containers").fetchone()
        document = json.loads(record)
        assert (document["state"]["status"], document["state"]["starting"]) == ("created", boot_id())
        if boot == "other":
            document["state"]["starting"] = "00000000-0000-0000-0000-000000000000"
        db.execute("UPDATE containers SET record = ?", (json.dumps(document).encode(),))
    os.kill(int(read(f"{own_engine.exec_root}/run/{ident}/monitor.pid")), signal.SIGKILL)
    own_engine.settings = {}
    own_engine.start()
    found = state(own_engine, "begun")["State"]
    assert f"{found['Status']} {found['ExitCode'] or ''}".strip() == left
    own_engine.client("start", "begun")
    own_engine.stop(signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(f"file:{own_engine.data_root}/ketch.db?mode=ro", uri=True)) as db:
        assert json.loads(db.execute("SELECT record FROM containers").fetchone()[0])["state"]["starting"] == ""
    own_engine.start()


def test_directory_that_a_power_cut_took(alone):
    """The row was durable, the directories that were made before it were not."""
    made = alone.client("create", "--name", "made", "busybox", "sh", "-c", "stat -c %a /; echo up").out.strip()
    alone.stop()
    shutil.rmtree(f"{alone.data_root}/containers/{made}")
    alone.start()
    assert "its directory was lost" in alone.log()
    assert alone.client("start", "-a", "made").out == "755\nup\n"
