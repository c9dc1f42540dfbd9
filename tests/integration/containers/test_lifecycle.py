"""A container's life through both clients: listing, stopping, starting, waiting, renaming, removing, watching."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.rawapi import Api, Unix
from tests.support.waiting import patient, until


@pytest.fixture
def sleeper(client) -> str:
    """A running container's name."""
    client("run", "-d", "--name", "sleeper", "busybox", "sleep", "1000")
    return "sleeper"


def state(client, name):
    return json.loads(client("inspect", name).out)[0]["State"]


def test_ps(client, sleeper):
    client("run", "--name", "done", "busybox", "sh", "-c", "exit 3", check=False)
    lines = client("ps").out.splitlines()
    assert len(lines) == 2
    assert lines[0].split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert '"sleep 1000"' in lines[1]
    assert " Up " in lines[1]
    everything = client("ps", "-a", "--format", "{{.Names}} {{.State}} {{.Status}}").out.splitlines()
    assert [line.split()[:2] for line in everything] == [["done", "exited"], ["sleeper", "running"]]
    assert "Exited (3)" in everything[0]
    assert client("ps", "-aq", "--filter", "exited=3").out.split() == client("ps", "-lq").out.split()
    assert client("ps", "-a", "--filter", "name=sleep", "--format", "{{.Names}}").out == "sleeper\n"
    assert client("ps", "-a", "--filter", "status=exited", "--format", "{{.Names}}").out == "done\n"


def test_stop_uses_the_signal_then_kills(client):
    script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    client("run", "-d", "--name", "polite", "busybox", "sh", "-c", script)
    with client.piped("logs", "-f", "polite") as logs:
        logs.expect("up")
        assert client("stop", "polite").out == "polite\n"
        logs.expect("bye")
        assert logs.wait() == 0
    assert state(client, "polite")["ExitCode"] == 0
    # PID 1 without a handler: TERM is ignored. Its own time to stop is longer than the client waits here.
    client("run", "-d", "--name", "stubborn", "--stop-timeout", "1000", "busybox", "sleep", "1000")
    begin = time.monotonic()
    client("stop", "-t", "1", "stubborn")
    assert time.monotonic() - begin > 0.9
    assert state(client, "stubborn")["ExitCode"] == 137


def test_start_restart_and_state(client, sleeper):
    first = state(client, sleeper)
    assert first["Running"] is True
    assert first["Pid"] > 1
    client("restart", "-t", "0", sleeper)
    second = state(client, sleeper)
    assert second["Pid"] not in (0, first["Pid"])
    client("stop", "-t", "0", sleeper)
    assert state(client, sleeper)["Status"] == "exited"
    assert client("start", sleeper).out == "sleeper\n"
    assert state(client, sleeper)["Running"] is True


def test_files_survive_a_restart(client):
    client("run", "--name", "twice", "busybox", "sh", "-c", "echo again >> /file; cat /file")
    client("start", "twice")
    assert client("wait", "twice").out == "0\n"
    assert client("logs", "twice").out == "again\nagain\nagain\n"


def test_kill_with_a_signal(client):
    script = "trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done"
    client("run", "-d", "--name", "victim", "busybox", "sh", "-c", script)
    with client.piped("logs", "-f", "victim") as logs:
        logs.expect("up")
    with client.piped("wait", "victim") as waiter:
        client("kill", "-s", "USR1", "victim")
        waiter.expect(r"^9\n")
        assert waiter.wait() == 0
    result = client("kill", "victim", check=False)
    assert result.code == 1
    assert "is not running" in result.err


def test_wait_for_several(client):
    client("run", "-d", "--name", "a1", "busybox", "sh", "-c", "exit 4")
    client("run", "-d", "--name", "a2", "busybox", "sh", "-c", "exit 5")
    assert client("wait", "a1", "a2").out == "4\n5\n"


def test_pause(client, sleeper):
    client("pause", sleeper)
    assert state(client, sleeper)["Status"] == "paused"
    assert "(Paused)" in client("ps", "--format", "{{.Status}}").out
    client("unpause", sleeper)
    assert state(client, sleeper)["Status"] == "running"


def test_rename(client, sleeper):
    client("rename", sleeper, "dreamer")
    assert client("ps", "--format", "{{.Names}}").out == "dreamer\n"
    assert client("inspect", "-f", "{{.Name}}", "dreamer").out == "/dreamer\n"
    assert client("inspect", sleeper, check=False).code == 1
    client("create", "--name", "other", "busybox")
    result = client("rename", "other", "dreamer", check=False)
    assert result.code == 1
    assert "already in use" in result.err


def test_rm(client, sleeper):
    result = client("rm", sleeper, check=False)
    assert result.code == 1
    assert "running" in result.err
    assert client("rm", "-f", sleeper).out == "sleeper\n"
    assert client("ps", "-aq").out == ""
    assert "No such container" in client("rm", sleeper, check=False).err


def test_top(client, sleeper):
    lines = client("top", sleeper).out.splitlines()
    assert lines[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert lines[1].endswith("sleep 1000")
    assert client("top", sleeper, "-o", "pid,args").out.splitlines()[0].split() == ["PID", "COMMAND"]


def test_stats(client, sleeper):
    out = client("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}").out.split()
    assert out[:2] == ["sleeper", "1"]
    assert out[2][-1] == "B"
    header = client("stats", "--no-stream").out.splitlines()[0]
    assert header.startswith("CONTAINER ID") and "CPU %" in header and "PIDS" in header


def test_inspect(client, engine):
    client("run", "-d", "--name", "full", "-e", "A=b", "-v", "/tmp:/host:ro", "-m", "64m", "busybox", "sleep", "1000")
    (seen,) = json.loads(client("inspect", "full").out)
    assert seen["Path"] == "sleep" and seen["Args"] == ["1000"]
    assert "A=b" in seen["Config"]["Env"]
    assert seen["HostConfig"]["Memory"] == 64 << 20
    assert seen["HostConfig"]["Binds"] == ["/tmp:/host:ro"]
    assert [(m["Type"], m["Source"], m["Destination"], m["RW"]) for m in seen["Mounts"]] == [
        ("bind", "/tmp", "/host", False)
    ]
    assert seen["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert seen["State"]["StartedAt"] > seen["Created"]
    assert client("inspect", "-f", "{{.State.Status}} {{len .Mounts}}", "full").out == "running 1\n"
    assert client("inspect", "-f", "{{json .Config.Cmd}}", "full").out == '["sleep","1000"]\n'


@pytest.mark.parametrize("command", [("rm", "-f"), ("kill",), ("stop", "-t", "1")])
def test_a_paused_container_can_be_ended(client, command):
    client("run", "-d", "--name", "frozen", "busybox", "sleep", "1000")
    client("pause", "frozen")
    client(*command, "frozen", timeout=15)
    if command[0] != "rm":
        assert client("inspect", "-f", "{{.State.Status}}", "frozen").out == "exited\n"


def test_references(client):
    first = client("create", "--name", "alpha", "busybox").out.strip()
    for ref in (first, first[:12], first[:4], "alpha", "/alpha"):
        assert client("inspect", "-f", "{{.Id}}", ref).out.strip() == first


def test_events(client, engine):
    begin = str(int(time.time()))
    with client.piped("events", "--filter", "type=container", "--format", "{{.Action}}") as live:
        # The subscription is there when something that happens shows; attach until it does.
        deadline = time.monotonic() + patient(10)
        while not live.text and time.monotonic() < deadline:
            client("create", "--name", "herald", "busybox")
            client("rm", "herald")
            live.read(0.1)
        live.text = ""
        client("run", "--rm", "--name", "eventful", "busybox", "true")
        for action in ("create", "start", "die", "destroy"):
            live.expect(action)
    past = client("events", "--since", begin, "--until", str(int(time.time()) + 1), "--format", "{{json .}}").out
    actions = [
        e["Action"] for e in map(json.loads, past.splitlines()) if e["Actor"]["Attributes"].get("name") == "eventful"
    ]
    assert [a for a in actions if a in ("create", "start", "die", "destroy")] == ["create", "start", "die", "destroy"]


def test_auto_names_and_duplicate(client):
    client("create", "busybox")
    (name,) = client("ps", "-a", "--format", "{{.Names}}").out.split()
    assert name.replace("_", "").isalnum() and "_" in name
    result = client("run", "--name", name, "busybox", check=False)
    assert result.code == 125
    assert "already in use" in result.err


def test_info_and_version(client):
    client("create", "busybox")
    seen = json.loads(client("info", "--format", "{{json .}}").out)
    assert seen["Containers"] == 1 and seen["OSType"] == "linux" and seen["NCPU"] > 0
    assert "Server Version" in client("info").out
    version = json.loads(client("version", "--format", "{{json .}}").out)
    assert version["Server"]["Os"] == "linux"
    assert tuple(map(int, version["Server"]["ApiVersion"].split("."))) >= (1, 41)


def test_init_process_ends_with_its_children(client):
    """What the container's first process leaves behind ends with it."""
    client("run", "--rm", "busybox", "sh", "-c", "sleep 1000 & sleep 1000 & exit 0", timeout=10)


def test_auto_remove_removes_anonymous_volumes(client):
    before = client("volume", "ls", "-q").out if client.name == "docker" else None
    client("run", "--rm", "-v", "/data", "busybox", "touch", "/data/x")
    if before is not None:
        assert client("volume", "ls", "-q").out == before


def test_wait_in_the_pause_before_a_restart(engine):
    """It counts as running then, and who waits for its end is answered when the next start is given up."""
    api = Api(engine.socket)
    with ThreadPoolExecutor(3) as pool:  # the pauses take most of the time
        for done in [pool.submit(_end_in_the_pause, api, end) for end in ("stop", "kill", "rm")]:
            done.result()


def _end_in_the_pause(api, end):
    """One container that is ended so in a pause; it has the same name."""
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "exit 3"], "HostConfig": {"RestartPolicy": {"Name": "always"}}}
    api.must("POST", "/containers/create", body, name=end)
    api.must("POST", f"/containers/{end}/start")

    def pausing() -> bool:  # for 6.4 s, most of which are to come
        found = api.must("GET", f"/containers/{end}/json")
        ended = datetime.datetime.fromisoformat(found["State"]["FinishedAt"][:26].rstrip("Z") + "+00:00")
        lasts = datetime.datetime.now(datetime.UTC) - ended
        return found["RestartCount"] >= 7 and found["State"]["Status"] == "restarting" and lasts.seconds < 2

    until(pausing, "it is not started again")
    conditions = ("not-running", "next-exit", "removed")
    with ThreadPoolExecutor(3) as pool:
        asked = {condition: _waiting(api, end, condition) for condition in conditions}
        waits = {condition: pool.submit(answer.read) for condition, answer in asked.items()}
        done, _ = concurrent.futures.wait(waits.values(), timeout=0.5)
        assert not [wait.result() for wait in done]
        if end == "rm":
            api.must("DELETE", f"/containers/{end}", force=1)
        else:
            api.must("POST", f"/containers/{end}/{end}")
            state = api.must("GET", f"/containers/{end}/json")["State"]
            assert (state["Status"], state["ExitCode"]) == ("exited", 3)
        for condition in ("not-running", "next-exit"):
            assert json.loads(waits[condition].result(patient(5))) == {"StatusCode": 3}
        if end != "rm":
            assert not waits["removed"].done()
            api.must("DELETE", f"/containers/{end}")
        assert json.loads(waits["removed"].result(patient(5))) == {"StatusCode": 3}


def _waiting(api, name, condition):
    """The answer of a wait, of which no more than the head has come: the daemon waits from then on."""
    connection = Unix(api.path, 30)
    connection.request("POST", f"/containers/{name}/wait?condition={condition}")
    answer = connection.getresponse()
    assert answer.status == 200
    return answer


def test_nobody_sees_a_restart_as_an_end(engine):
    """Who is told of the end and looks then sees a container that runs: Compose would be done with it."""
    engine.docker("run", "-d", "--name", "one", "--stop-signal", "KILL", "busybox", "sleep", "1000")
    with contextlib.closing(engine.py()) as listening, contextlib.closing(engine.py()) as looking:
        events = listening.events(decode=True, filters={"event": "die"})
        restarting = concurrent.futures.ThreadPoolExecutor(1).submit(
            lambda: [engine.docker("restart", "one") for _ in range(5)]
        )
        for _ in range(5):
            next(events)
            assert looking.api.inspect_container("one")["State"]["Running"] is True
        restarting.result(patient(60))
        events.close()
