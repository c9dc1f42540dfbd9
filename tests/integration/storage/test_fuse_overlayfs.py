"""Containers whose roots fuse-overlayfs serves, of root's daemon and of a user's."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.support.programs import need
from tests.support.run import daemons, unprivileged
from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only


@pytest.fixture(params=["root", "user"])
def served(request):
    need("fuse-overlayfs")
    if request.param == "user":
        need("newuidmap")
        unprivileged.user()
    with daemons.one_of_its_own("f") as one:
        if request.param == "user":
            one.rootless()
        one.extra += ["--storage-driver", "fuse-overlayfs"]
        one.start()
        one.add_busybox()
        yield one


def servers(engine) -> list[int]:
    """The pids of the programs that serve roots of an engine."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"/fuse-overlayfs") and engine.data_root.encode() in words[3]:
            found.append(int(name))
    return found


def test_life_of_a_container(served, tmp_path):
    client = served.docker
    info = json.loads(client("info", "-f", "{{json .}}").out)
    assert info["Driver"] == "fuse-overlayfs"
    assert "hard links" in "\n".join(info["Warnings"])
    name = client(
        "create", "busybox", "sh", "-c", "echo run >>/log; rm -rf /etc; mkdir /etc; chown 3:4 /log"
    ).out.strip()
    client("start", "-a", name)
    gone = ["D /etc/group", "D /etc/passwd", "D /etc/shadow"]
    assert sorted(client("diff", name).out.splitlines()) == ["A /log", "C /etc", *gone]
    client("commit", name, "kept:1")
    show = "ls /etc/passwd 2>/dev/null; stat -c %u:%g /log; cat /log"
    assert client("run", "--rm", "--network", "none", "kept:1", "sh", "-c", show).out == "3:4\nrun\n"
    (tmp_path / "Dockerfile").write_text("FROM kept:1\nRUN rm /log && echo built >/new\n")
    client("build", "-t", "made", str(tmp_path))
    assert client("run", "--rm", "made", "sh", "-c", "ls /log 2>/dev/null; cat /new").out == "built\n"
    long = client("run", "-d", "--init", "busybox", "sh", "-c", "echo a >/a; while :; do sleep 1; done").out.strip()
    if os.stat(served.data_root).st_uid == 0:
        for pid in servers(served):
            with open(f"/proc/{pid}/cgroup", encoding="ascii") as f:
                assert "/monitors\n" in f.read()  # the end of ketchd's cgroup is not theirs
    served.stop(signal.SIGKILL)
    served.start()
    assert client("exec", long, "cat", "/a").out == "a\n"  # its server has not ended with ketchd
    client("kill", long)
    for pid in servers(served):
        os.kill(pid, signal.SIGKILL)
    client("start", "-a", name)  # another one serves it
    client("cp", f"{name}:/log", str(tmp_path / "log"))
    assert (tmp_path / "log").read_text() == "run\nrun\n"
    client("rm", "-f", name, long)
    until(lambda: not servers(served), "the servers of removed containers end")
    client("create", "busybox")
    assert servers(served)
    served.stop()
    until(lambda: not servers(served), "ketchd's end ends the servers of roots that nobody uses")
