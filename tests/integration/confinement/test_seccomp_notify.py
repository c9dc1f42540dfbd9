"""Seccomp filters that have a supervisor asked."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from errno import EDOM

import pytest

from ketch.linux.seccomp import ANSWER, CONNECTED, LOST
from ketch.runtime.security import seccomp_listener
from tests.support.runtimes.supervisor import Supervisor
from tests.support.waiting import until


@pytest.fixture
def profile(tmp_path):
    """The path of a profile that has somebody asked about some system calls."""

    def write(names, **fields):
        rules = [{"names": names, "action": "SCMP_ACT_NOTIFY"}] if names else []
        whole = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, **fields}
        (tmp_path / "profile.json").write_text(json.dumps(whole))
        return f"seccomp={tmp_path / 'profile.json'}"

    return write


def test_a_supervisor_answers_for_the_kernel(engine, tmp_path, profile):
    path = tmp_path / "supervisor.sock"
    option = profile(["mkdir", "mkdirat"], listenerPath=str(path), listenerMetadata="of mine")
    with Supervisor(path, EDOM) as supervisor:
        name = engine.docker("run", "-d", "--security-opt", option, "busybox", "sleep", "1000").out.strip()
        done = engine.docker("exec", name, "mkdir", "/new", check=False)
        assert (done.code, "out of range" in done.err or "out of domain" in done.err) == (1, True), done.err
        assert engine.docker("exec", name, "ls", "-d", "/new", check=False).code == 1
        pid = int(engine.docker("inspect", "-f", "{{.State.Pid}}", name).out)
        engine.docker("rm", "-f", name)
        assert engine.docker("run", "--rm", "busybox", "true").code == 0  # meanwhile the next one is made ready
    assert supervisor.connections == len(supervisor.told), "nobody else has connected"
    first, second, third = supervisor.told
    assert (first["ociVersion"], first["fds"], first["metadata"]) == ("1.2.0", ["seccompFd"], "of mine")
    assert (first["pid"], first["state"]["pid"], first["state"]["id"]) == (pid, pid, name)
    assert (first["state"]["status"], second["state"]["status"]) == ("creating", "running")
    assert second["pid"] not in (pid, third["pid"])
    assert supervisor.pids == [second["pid"]]


def test_the_execution_itself_may_be_asked_about(engine, tmp_path, profile):
    """The child waits for the supervisor without a system call, which nobody could answer yet."""
    path = tmp_path / "supervisor.sock"
    names = ["execve", "close", "sendmsg", "sendto", "recvmsg", "mmap", "munmap", "futex", "exit_group", "nanosleep"]
    with Supervisor(path, 0) as supervisor:
        option = profile(names, listenerPath=str(path))
        assert engine.docker("run", "--rm", "--security-opt", option, "busybox", "echo", "there").out == "there\n"
    assert len(set(supervisor.pids)) == 1 and len(supervisor.pids) >= 2  # execve and exit_group


def test_a_child_that_was_stopped_holds_up_nobody(tmp_path):
    """Its parent, a monitor that has others to serve, does not wait until it tells its listener's number."""
    path = tmp_path / "supervisor.sock"
    with contextlib.ExitStack() as stack:
        supervisor = stack.enter_context(socket.socket(socket.AF_UNIX))
        supervisor.bind(str(path))
        supervisor.listen()
        child = stack.enter_context(subprocess.Popen(["sleep", "1000"]))
        stack.callback(child.kill)
        page = os.memfd_create("page")
        stack.callback(os.close, page)
        os.ftruncate(page, 4096)
        message = {"ev": "notify", "path": str(path), "metadata": ""}
        state = {"ociVersion": "1.2.0"}
        seccomp_listener.hand_over_aside(message, [os.dup(page), os.pidfd_open(child.pid)], state)
        until(lambda: os.pread(page, 1, ANSWER)[0] == CONNECTED, "the supervisor is there")
        assert child.poll() is None  # who waits for it in vain ends it
        child.kill()
        until(lambda: os.pread(page, 1, ANSWER)[0] == LOST, "its end is noticed")
        os.waitpid(-1, 0)


@pytest.mark.parametrize("kind", ["nobody", "leaves"])
def test_without_a_supervisor_nothing_runs(engine, tmp_path, profile, kind):
    path = tmp_path / "supervisor.sock"
    option = profile(["mkdir"], listenerPath=str(path))
    if kind == "leaves":
        with Supervisor(path, 0):
            pass
    done = engine.docker("run", "--rm", "--security-opt", option, "busybox", "true", check=False)
    assert done.code == (125 if kind == "leaves" else 127)  # of the client, by the reason's words
    reason = "connection refused" if kind == "leaves" else "no such file or directory"
    assert f"connect to the seccomp listener `{path}`: {reason}" in done.err.lower()


@pytest.mark.parametrize(
    ("names", "fields", "message"),
    [
        (["mkdir"], {}, "SCMP_ACT_NOTIFY needs a listenerPath"),
        (["write"], {"listenerPath": "/x"}, "SCMP_ACT_NOTIFY cannot be the action of write"),
        (["mkdir"], {"defaultAction": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY cannot be the default action"),
        ([], {"listenerMetadata": "x"}, "listenerMetadata needs a listenerPath"),
    ],
)
def test_profiles_that_cannot_be(engine, profile, names, fields, message):
    option = profile(names, **fields)
    done = engine.docker("run", "--rm", "--security-opt", option, "busybox", "true", check=False)
    assert (done.code, message in done.err) == (125, True), done.err
