"""What a container can do is the same, whichever runtime makes it."""

from __future__ import annotations

import json
import os

import pytest

from tests.support.programs import need
from tests.support.rawapi import Api
from tests.support.waiting import until


@pytest.fixture
def run(engine, runtime):
    """Run a container with the runtime; returns what it wrote."""

    def call(*args: str, check: bool = True):
        return engine.ketch("run", "--runtime", runtime, *args, check=check)

    return call


@pytest.fixture
def box(engine, run):
    """A container that writes a line each time that it is told to, and what it does at TERM."""
    script = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done"
    run("-d", "--name", "box", "-m", "64m", "-e", "COLOUR=blue", "busybox", "sh", "-c", script)
    until(lambda: engine.ketch("logs", "box").out == "up\n", "it is up")
    return "box"


def state(engine, name):
    return engine.inspect(name)["State"]


def test_one_that_ends(engine, run):
    assert run("--rm", "busybox", "sh", "-c", "echo out; echo err >&2").out == "out\n"
    done = run("--name", "three", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")
    assert engine.ketch("start", "-a", "three", check=False).code == 3
    assert engine.ketch("logs", "three").out == "out\nout\n"
    assert state(engine, "three")["Status"] == "exited"


def test_surroundings(engine, run):
    engine.ketch("network", "create", "lan")
    run("-d", "--name", "web", "--network", "lan", "busybox", "sleep", "1000")
    script = "id -u; hostname; pwd; echo $HOME $A; ls -d /.dockerenv; ip -o addr show eth0 | wc -l; ping -c 1 -W 2 web"
    options = ["--network", "lan", "-h", "inside", "-w", "/new/place", "-e", "A=b"]
    out = run("--rm", *options, "busybox", "sh", "-c", script).out.splitlines()
    assert out[:6] == ["0", "inside", "/new/place", "/root b", "/.dockerenv", out[5]]
    assert int(out[5]) >= 1
    assert "1 packets received" in "\n".join(out)
    assert run("--rm", "--network", "none", "--read-only", "busybox", "touch", "/x", check=False).code == 1
    assert run("--rm", "--network", "host", "busybox", "true").code == 0


def test_input_and_terminal(engine, run, runtime):
    assert engine.ketch("run", "-i", "--rm", "--runtime", runtime, "busybox", "cat", stdin=b"in\n").out == "in\n"
    with engine.ketch.terminal("run", "-it", "--rm", "--runtime", runtime, "busybox", "sh") as t:
        t.expect("/ # ")
        t.send("tty; echo $((40+2))\n")
        t.expect("/dev/pts/0")
        t.expect("42\r\n")
        t.resize(31, 97)
        t.send("until stty size | grep '^31 97$'; do sleep 0.05; done\n")  # the client sends it apart from its input
        t.expect("\r\n31 97\r\n")
        t.send("exit 5\n")
        assert t.wait() == 5


def test_execs(engine, box):
    client = engine.ketch
    assert client("exec", box, "sh", "-c", "echo $COLOUR; id -u").out == "blue\n0\n"
    assert client(
        "exec", "-i", "-u", "nobody", "-w", "/tmp", box, "sh", "-c", "cat; id -u; pwd", stdin=b"in\n"
    ).out == ("in\n65534\n/tmp\n")
    assert [client("exec", box, "sh", "-c", f"exit {n}", check=False).code for n in (0, 4, 255)] == [0, 4, 255]
    missing = client("exec", box, "nonesuch", check=False)
    assert (missing.code, "not found in $PATH" in missing.out + missing.err) == (127, True)
    with client.terminal("exec", "-it", box, "sh") as t:
        t.expect("/ # ")
        t.send("tty; exit 6\n")
        t.expect("/dev/pts/")
        assert t.wait() == 6
    client("exec", "-d", box, "sh", "-c", "echo left > /mark; sleep 1000")
    until(lambda: client("exec", box, "cat", "/mark", check=False).out == "left\n", "the detached one ran")
    assert sum("sleep 1000" in line for line in client("top", box).out.splitlines()) == 1


def test_pause_update_stats(engine, box):
    client = engine.ketch
    client("pause", box)
    assert state(engine, box)["Status"] == "paused"
    assert engine.ketch("exec", box, "true", check=False).code == 1
    client("unpause", box)
    assert client("exec", box, "true").code == 0
    client("update", "-m", "48m", "--memory-swap", "48m", "--pids-limit", "77", box)
    sample = json.loads(client("stats", "--no-stream", "--format", "json", box).out)
    assert sample["MemUsage"].endswith("/ 48MiB")
    assert int(sample["PIDs"]) >= 1


def test_signals(engine, box):
    client = engine.ketch
    client("kill", "-s", "TERM", box)
    assert client("wait", box).out == "7\n"
    assert client("logs", box).out == "up\nbye\n"
    client("start", box)
    until(lambda: client("logs", box).out == "up\nbye\nup\n", "it is up again")
    client("kill", box)
    assert state(engine, box)["ExitCode"] == 137
    client("start", box)
    assert client("rm", "-f", box).out == "box\n"


SLOW = """#!/bin/sh
{} "$@"
code=$?
case " $* " in *" start "*) sleep 0.3; esac
exit $code
"""


def test_whose_output_is_there_runs(engine, other, tmp_path):
    """Whoever reads the first line can send a signal, also while the runtime's call to start it has not ended."""
    slow = tmp_path / "slow"
    slow.write_text(SLOW.format(need(other)))
    slow.chmod(0o755)
    script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done"
    engine.ketch("create", "--name", "me", "--runtime", str(slow), "busybox", "sh", "-c", script)
    api = Api(engine.socket)
    with engine.ketch.piped("start", "me") as client:
        until(lambda: engine.ketch("logs", "me").out == "up\n", "it has written")
        assert api("POST", "/containers/me/kill", signal="TERM")[0] == 204
        assert client.wait() == 0
    assert api("POST", "/containers/me/wait")[1]["StatusCode"] == 7
    assert engine.inspect("me")["HostConfig"]["Runtime"] == str(slow)


def test_restarts(engine, run):
    run("-d", "--name", "again", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo x; exit 1")
    until(lambda: state(engine, "again")["Status"] == "exited", "it is given up")
    assert engine.inspect("again")["RestartCount"] == 2
    assert engine.ketch("logs", "again").out == "x\nx\nx\n"


def test_mounts(engine, run, tmp_path):
    (tmp_path / "password").write_text("sesame")
    run("--rm", "-v", "vol:/v", "busybox", "sh", "-c", "mkdir -p /v/part; echo deep > /v/part/file; chmod 700 /v/part")
    script = (
        "cat /p/file; ls /image/bin/busybox; cat /run/secrets/pass /here/password; grep -c ' /t tmpfs' /proc/mounts;"
        "echo no > /here/x"
    )
    mounts = [
        *("--mount", "type=volume,src=vol,dst=/p,volume-subpath=part", "--tmpfs", "/t:defaults,size=1m"),
        *("--mount", "type=image,src=busybox,dst=/image", "-v", f"{tmp_path}:/here:ro"),
        *("--security-opt", "apparmor=unconfined", "--secret", f"id=pass,src={tmp_path}/password"),
    ]
    out = run("--rm", *mounts, "busybox", "sh", "-c", script, check=False)
    assert out.out == "deep\n/image/bin/busybox\nsesamesesame1\n"
    assert "Read-only" in out.err


def test_what_is_read_only_is_so_in_the_kernel(engine, run, tmp_path):
    """Also what a runtime is given as a mount that has been made, whose options it might take off."""
    run("--rm", "-v", "vol:/v", "busybox", "mkdir", "-p", "/v/part")
    wanted = {
        "/image": ("--mount", "type=image,src=busybox,dst=/image"),
        "/part": ("--mount", "type=volume,src=vol,dst=/part,volume-subpath=part,readonly"),
        "/vol": ("-v", "vol:/vol:ro"),
        "/bind": ("-v", f"{tmp_path}:/bind:ro"),
        "/mapped": ("-v", f"{tmp_path}:/mapped:ro,idmap"),
    }
    options = [word for words in wanted.values() for word in words]
    shown = run("--rm", *options, "busybox", "cat", "/proc/self/mountinfo").out.splitlines()
    found = {fields[4]: fields[5].split(",")[0] for fields in map(str.split, shown) if fields[4] in wanted}
    assert found == dict.fromkeys(wanted, "ro")
    assert run("--rm", *wanted["/image"], "busybox", "touch", "/image/x", check=False).code == 1


def test_mounts_that_do_not_fit(engine, runtime, tmp_path):
    """They are the caller's mistake, whoever finds it."""
    (tmp_path / "file").touch()
    for bind, words in {
        f"{tmp_path}/file:/etc": "Are you trying to mount a directory onto a file (or vice-versa)?",
        f"{tmp_path}:/etc/passwd": "Are you trying to mount a directory onto a file (or vice-versa)?",
        f"{tmp_path}:/proc": "it cannot be mounted there",
        f"{tmp_path}:/proc/self": "it is inside /proc",
    }.items():
        api = Api(engine.socket)
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Binds": [bind], "Runtime": runtime}}
        made = api.must("POST", "/containers/create", body)
        status, answer = api("POST", f"/containers/{made['Id']}/start")
        assert (status, words in answer["message"]) == (400 if "Are you" in words else 500, True), (bind, answer)


def test_namespaces_of_another(engine, run):
    run("-d", "--name", "first", "--ipc", "shareable", "busybox", "sh", "-c", "echo shared > /dev/shm/x; sleep 1000")
    until(lambda: engine.ketch("exec", "first", "cat", "/dev/shm/x", check=False).out, "it has written")
    out = run(
        "--rm",
        "--ipc",
        "container:first",
        "--pid",
        "container:first",
        "--network",
        "container:first",
        "busybox",
        "sh",
        "-c",
        "cat /dev/shm/x; ps | grep -c 'sleep 1[0]00'",
    ).out
    assert out == "shared\n1\n"


def test_the_hosts_null_device_is_nobodys_stream(engine, run):
    """A runtime that gives the streams to the container's user gives it nothing of the host's."""
    before = os.stat("/dev/null")
    script = ("sh", "-c", "readlink /proc/self/fd/0; cat; id -u")
    options = ["--rm", "-u", "nobody"]
    out = [run(*options, "busybox", *script).out, run(*options, "-t", "busybox", "id", "-u").out]
    run("-d", "--name", "box", "-u", "nobody", "busybox", "sleep", "1000")
    out.append(engine.ketch("exec", "box", *script).out)
    assert (os.stat("/dev/null").st_uid, os.stat("/dev/null").st_mode) == (before.st_uid, before.st_mode)
    assert [text.split()[-1] for text in out] == ["65534"] * 3


def test_what_fails(engine, run):
    missing = run("--name", "missing", "busybox", "nonesuch", check=False)
    assert missing.code == 127
    assert "not found in $PATH" in missing.err
    assert state(engine, "missing")["ExitCode"] == 127
    assert state(engine, "missing")["Status"] == "created"
    assert run("busybox", "/etc/passwd", check=False).code == 126


def test_memory_that_runs_out(engine, run):
    run("--name", "hungry", "-m", "8m", "--memory-swap", "8m", "busybox", "sh", "-c", "tail /dev/zero", check=False)
    assert state(engine, "hungry")["OOMKilled"] is True


def test_health(engine, run):
    run("-d", "--name", "fit", "--health-cmd", "test -e /tmp", "--health-interval", "100ms", "busybox", "sleep", "1000")
    until(lambda: state(engine, "fit")["Health"]["Status"] == "healthy", "it is healthy")


def test_capabilities(engine, run):
    """A privileged container has what ketchd has, and an ordinary user nothing until a program gives it."""
    read = ("sh", "-c", "grep -E '^Cap(Eff|Bnd)' /proc/self/status")
    with open("/proc/self/status", encoding="ascii") as f:
        own = next(line for line in f if line.startswith("CapBnd")).split()[1]
    assert own in run("--rm", "--privileged", "busybox", *read).out
    run("-d", "--name", "user", "-u", "nobody", "--cap-add", "SYS_TIME", "busybox", "sleep", "1000")
    expected = "CapEff:\t0000000000000000\nCapBnd:\t00000000aa0425fb\n"
    assert engine.ketch("exec", "user", *read).out == expected
    assert run("--rm", "-u", "nobody", "--cap-add", "SYS_TIME", "busybox", *read).out == expected
