"""Changes that wait for a container's next start: environment, published ports, mounts."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request

import pytest

from tests.support.waiting import patient

pytestmark = pytest.mark.ketch_only
SERVE = "mkdir -p /www && echo moored > /www/index.html && exec httpd -f -p 80 -h /www"


def facts(engine, name: str) -> dict:
    return json.loads(engine.ketch("inspect", name).out)[0]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answer_of(port: int) -> bytes:
    """What the server says, as soon as it listens."""
    deadline = time.monotonic() + patient(10)
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=patient(5)) as answer:
                return answer.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def refuses(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


def test_environment_changes_at_the_next_start(engine):
    ketch = engine.ketch
    ketch("run", "-d", "--name", "box", "-e", "A=1", "-e", "B=2", "busybox", "sleep", "1000")
    changed = ketch("update", "-e", "A=9", "-e", "C=3", "--env-rm", "B", "box")
    assert changed.out == "box\n"
    assert "applies at the next restart: ketch restart box" in changed.err
    assert ketch("exec", "box", "sh", "-c", "echo $A$B$C").out == "12\n"
    assert facts(engine, "box")["Pending"]["Env"][:2] == ["C=3", "A=9"]
    assert facts(engine, "box")["Config"]["Env"][:2] == ["A=1", "B=2"]
    ketch("restart", "-t", "0", "box")
    assert ketch("exec", "box", "sh", "-c", "echo $A$B$C").out == "93\n"
    assert "Pending" not in facts(engine, "box")
    ketch("restart", "-t", "0", "box")
    assert ketch("exec", "box", "sh", "-c", "echo $A$B$C").out == "93\n"


def test_one_change_follows_another_and_can_undo_it(engine):
    ketch = engine.ketch
    ketch("create", "--name", "box", "-e", "A=1", "busybox", "sleep", "1000")
    ketch("update", "-e", "A=2", "box")
    ketch("update", "-e", "B=1", "-m", "64m", "box")
    assert facts(engine, "box")["Pending"]["Env"][:2] == ["B=1", "A=2"]
    assert facts(engine, "box")["HostConfig"]["Memory"] == 64 << 20
    undone = ketch("update", "-e", "A=1", "--env-rm", "B", "box")
    assert undone.err == ""
    assert "Pending" not in facts(engine, "box")
    ketch("update", "-e", "A=3", "box")
    ketch("update", "--pending-reset", "box")
    assert "Pending" not in facts(engine, "box")


def test_ports(engine):
    ketch = engine.ketch
    first, second = free_port(), free_port()
    ketch("run", "-d", "--name", "web", "-p", f"127.0.0.1:{first}:80", "busybox", "sh", "-c", SERVE)
    assert answer_of(first) == b"moored\n"
    ketch("update", "--publish-rm", "80", "-p", f"127.0.0.1:{second}:80", "web")
    assert answer_of(first) == b"moored\n"
    ketch("restart", "-t", "0", "web")
    assert refuses(first)
    assert answer_of(second) == b"moored\n"
    assert ketch("port", "web").out == f"80/tcp -> 127.0.0.1:{second}\n"
    ketch("update", "--publish-rm", f"127.0.0.1:{second}:80", "web")
    ketch("restart", "-t", "0", "web")
    assert ketch("port", "web").out == ""
    assert refuses(second)
    assert "ExposedPorts" not in facts(engine, "web")["Config"]


def test_mounts(engine, tmp_path):
    ketch = engine.ketch
    (tmp_path / "hello").write_text("there", encoding="utf-8")
    ketch("run", "-d", "--name", "box", "-v", "old:/data", "--tmpfs", "/scratch", "busybox", "sleep", "1000")
    ketch("exec", "box", "sh", "-c", "echo kept > /data/x")
    ketch(
        "update",
        "-v",
        "new:/data",
        "--mount",
        f"type=bind,src={tmp_path},dst=/host,ro",
        "-v",
        "/anonymous",
        "--mount-rm",
        "/scratch",
        "box",
    )
    # What it will need must not be taken away before.
    refused = ketch("volume", "rm", "new", check=False)
    assert refused.code == 1 and "in use" in refused.err
    ketch("restart", "-t", "0", "box")
    assert ketch("exec", "box", "cat", "/host/hello").out == "there"
    shown = facts(engine, "box")
    assert {m["Destination"] for m in shown["Mounts"]} == {"/data", "/host", "/anonymous"}
    assert shown["HostConfig"]["Binds"] == ["new:/data"]
    assert "Tmpfs" not in shown["HostConfig"]
    ketch("exec", "box", "sh", "-c", "! test -e /data/x && ! touch /host/x && ! grep -q /scratch /proc/mounts")
    ketch("update", "--mount-rm", "/anonymous", "-v", "old:/data", "box")
    ketch("restart", "-t", "0", "box")
    assert ketch("exec", "box", "cat", "/data/x").out == "kept\n"
    ketch("rm", "-fv", "box")
    ketch("volume", "rm", "old", "new")
    ketch("volume", "prune", "-f")


def test_new_volumes_are_filled_from_the_image_and_go_with_a_failure(engine):
    ketch = engine.ketch
    ketch("create", "--name", "box", "busybox", "ls", "/etc/passwd")
    before = ketch("volume", "ls", "-q").out
    failed = ketch("update", "-v", "extra:/etc", "-v", "fine:/b", "-e", "=bad", "box", check=False)
    assert failed.code == 125
    failed = ketch("update", "-v", "extra:/etc", "--mount", "type=bind,src=/nonexistent,dst=/x", "box", check=False)
    assert failed.code == 1 and "bind source path does not exist" in failed.err
    failed = ketch("update", "-v", "extra:/etc", "-p", "99999:80", "box", check=False)
    assert failed.code == 1
    assert ketch("volume", "ls", "-q").out == before
    ketch("update", "-v", "/etc", "box")
    ketch("update", "--pending-reset", "box")
    assert ketch("volume", "ls", "-q").out == before
    ketch("update", "-v", "/etc", "box")
    assert ketch("start", "-a", "box").out == "/etc/passwd\n"
    ketch("rm", "-v", "box")
    assert ketch("volume", "ls", "-q").out == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--env-rm", "NOPE"), "the container has none of this name"),
        (("--publish-rm", "81"), "does not publish it so"),
        (("--mount-rm", "/nope"), "nothing is mounted there"),
        (("-p", "1:2:3:4"), "invalid --publish"),
        (("-v", "x:relative"), "mount path must be absolute"),
        (("-v", "a:/d", "--mount", "type=volume,src=b,dst=/d"), "Duplicate mount point"),
    ],
)
def test_nonsense_is_refused_when_it_is_asked_for(engine, flags, words):
    engine.ketch("create", "--name", "box", "busybox", "true")
    failed = engine.ketch("update", *flags, "box", check=False)
    assert failed.code == 1 and words in failed.err
    assert "Pending" not in facts(engine, "box")


def test_a_start_that_fails_leaves_the_old_configuration(engine):
    ketch = engine.ketch
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ketch("run", "-d", "--name", "web", "-e", "A=1", "busybox", "sleep", "1000")
        ketch("update", "-p", f"127.0.0.1:{port}:80", "-e", "A=2", "web")
        failed = ketch("restart", "-t", "0", "web", check=False)
        assert failed.code == 1
        assert str(port) in failed.err
    shown = facts(engine, "web")
    assert shown["State"]["Status"] == "exited"
    assert shown["HostConfig"]["PortBindings"] == {}
    assert shown["Config"]["Env"][0] == "A=1"
    assert shown["Pending"]["Env"][0] == "A=2"
    ketch("update", "--pending-reset", "web")
    ketch("start", "web")
    assert ketch("exec", "web", "sh", "-c", "echo $A").out == "1\n"


def test_labels_change_at_once(engine):
    ketch = engine.ketch
    ketch("run", "-d", "--name", "box", "-l", "a=1", "-l", "b=2", "busybox", "sleep", "1000")
    assert ketch("update", "-l", "a=9", "-l", "c=3", "--label-rm", "b", "box").err == ""
    assert facts(engine, "box")["Config"]["Labels"] == {"a": "9", "c": "3"}
    assert ketch("ps", "-q", "--filter", "label=a=9").out


def test_applies_with_a_restart_policy(engine):
    ketch = engine.ketch
    ketch("run", "-d", "--name", "box", "--restart", "always", "-e", "A=1", "busybox", "sh", "-c", "cat; sleep 1000")
    ketch("update", "-e", "A=2", "box")
    container = facts(engine, "box")["Id"]
    with ketch.piped(
        "events", "--since", "0", "--filter", f"container={container}", "--format", "{{.Action}}"
    ) as events:
        os.kill(facts(engine, "box")["State"]["Pid"], signal.SIGKILL)
        events.expect("start\n(.|\n)*start\n")
    assert ketch("exec", "box", "sh", "-c", "echo $A").out == "2\n"


def test_survives_the_daemon_and_applies_when_it_boots(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    ketch = own_engine.ketch
    ketch("run", "-d", "--name", "box", "--restart", "always", "-e", "A=1", "busybox", "sleep", "1000")
    ketch("run", "-d", "--name", "calm", "-e", "A=1", "busybox", "sleep", "1000")
    ketch("update", "-e", "A=2", "-v", "kept:/data", "box", "calm")
    pid = int(ketch("inspect", "-f", "{{.State.Pid}}", "box").out)
    own_engine.stop(signal.SIGKILL)
    own_engine.start()
    assert ketch("exec", "box", "sh", "-c", "echo $A").out == "1\n"  # it never stopped
    assert facts(own_engine, "box")["Pending"]["Env"][0] == "A=2"
    own_engine.stop(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    own_engine.start()
    container = facts(own_engine, "box")["Id"]
    with ketch.piped(
        "events", "--since", "0", "--filter", f"container={container}", "--format", "{{.Action}}"
    ) as events:
        events.expect("die\n(.|\n)*start\n")
    assert ketch("exec", "box", "sh", "-c", 'echo $A; grep -c " /data " /proc/mounts').out == "2\n1\n"
    ketch("restart", "-t", "0", "calm")
    assert ketch("exec", "calm", "sh", "-c", "echo $A").out == "2\n"
    ketch("rm", "-f", "box", "calm")
    ketch("volume", "rm", "kept")


def test_a_volume_outlives_the_container_that_it_was_made_for(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    ketch = own_engine.ketch
    ketch("create", "--name", "box", "busybox", "sh", "-c", "echo kept >/data/file")
    ketch("update", "-v", "data:/data", "box")
    ketch("start", "-a", "box")
    ketch("rm", "box")
    own_engine.stop()
    own_engine.start()
    assert ketch("run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/file").out == "kept\n"
