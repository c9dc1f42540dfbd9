"""Daemons and runtimes whose parent ignores and blocks every signal and has an odd umask: none of it comes through."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.boxes import runtime_box
from tests.support.waiting import patient

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engines import Engine

pytestmark = [pytest.mark.timeout(120), pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")]

BAD_PARENT = [sys.executable, os.path.join(os.path.dirname(runtime_box.__file__), "bad_parent.py")]
SIGNALS = "cat /proc/self/status"  # grep would have a handler of its own
FIELDS = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")
MODES = (
    "umask; stat -c '%a %n' / /etc /etc/hosts /etc/hostname /etc/resolv.conf /v /new /dev /dev/shm /dev/null /tmp/made"
)


def signals(text: str) -> dict[str, int]:
    """The masks as numbers, by field."""
    lines = (line.split(":") for line in text.splitlines() if line.startswith(FIELDS))
    return {name: int(mask, 16) for name, mask in lines}


@pytest.fixture(params=["077", "000"])
def bad(request: pytest.FixtureRequest, own_engine: Engine) -> Engine:
    """A daemon with such a parent."""
    own_engine.prefix = [*BAD_PARENT, request.param]
    own_engine.start()
    own_engine.add_busybox()
    return own_engine


def test_containers_of_such_a_daemon(bad: Engine) -> None:
    """PID 1, an exec and a health check: every signal is as by default, and the files are there for every user."""
    script = f"{SIGNALS}; touch /tmp/made; {MODES}; cat /etc/hosts /etc/resolv.conf > /dev/null; exec sleep 1000"
    check = ("--health-cmd", f"{SIGNALS} > /tmp/check; umask >> /tmp/check", "--health-interval", "1s")
    places = ("-v", "data:/v", "-v", f"{bad.root}/new:/new", "-w", "/work")
    bad.client("run", "-d", "--name", "one", "-u", "4242:4343", *check, *places, "busybox", "sh", "-c", script)
    deadline = time.monotonic() + patient(20)
    while bad.client("inspect", "-f", "{{.State.Health.Status}}", "one").out.strip() == "starting":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    logs = bad.client("logs", "one").out
    modes = dict(reversed(line.split()) for line in logs.splitlines() if " /" in line)
    expected = {"/": "755", "/etc": "755", "/v": "755", "/new": "755", "/dev": "755", "/dev/shm": "1777"}
    files = {"/etc/hosts": "644", "/etc/hostname": "644", "/etc/resolv.conf": "644", "/dev/null": "666"}
    assert modes == {**expected, **files, "/tmp/made": "644"}
    execed = bad.client("exec", "one", "sh", "-c", f"{SIGNALS}; umask; touch /tmp/more; stat -c %a /tmp/more /work").out
    checked = bad.client("exec", "one", "cat", "/tmp/check").out
    assert execed.split()[-3:] == ["0022", "644", "755"]
    for text in (logs, execed, checked):
        assert "0022" in text.splitlines()
        assert signals(text) == dict.fromkeys(FIELDS, 0)


def test_such_a_daemon_leaves_nothing_open_to_others(bad: Engine) -> None:
    bad.client("run", "--name", "one", "-v", "data:/v", "busybox", "true")
    bad.client("create", "--name", "two", "busybox", "true")
    bad.client("commit", "one", "three")
    found = []
    for top in (bad.data_root, bad.exec_root):
        for directory, names, files in os.walk(top):
            for path in [directory, *(os.path.join(directory, name) for name in [*names, *files])]:
                mode = os.lstat(path).st_mode
                ours = "/diff/" not in path and "/upper/" not in path  # what an image holds is not ours to judge
                if ours and not stat.S_ISLNK(mode) and mode & 0o002:
                    found.append((path, oct(mode)))
    assert found == []
    assert stat.S_IMODE(os.stat(bad.pidfile).st_mode) == 0o644
    assert bad.stop() == 0  # SIGTERM is heard, though it was blocked


@pytest.mark.parametrize("umask", ["077", "000"])
def test_the_command_line(tmp_path: Path, umask: str) -> None:
    """``ketch-runtime``: PID 1, an exec, and hooks of both kinds."""
    rootfs = runtime_box.make_rootfs(tmp_path / "image")
    box = runtime_box.Box(tmp_path, rootfs)
    look = f"{SIGNALS}; umask"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"({look}) > {tmp_path}/hook"], "env": ["PATH=/bin:/usr/bin"]}
    inside = {"path": "/bin/sh", "args": ["sh", "-c", f"({look}) > /tmp/hook"], "env": ["PATH=/bin"]}
    document = box.spec(
        ["sh", "-c", f"{look}; cat /tmp/hook; touch /tmp/ready; exec sleep 1000"],
        {
            "root": {"path": str(rootfs)},
            "hooks": {"createRuntime": [hook], "startContainer": [inside]},
        },
    )
    bundle = box.bundle(document)
    command = [
        *BAD_PARENT,
        umask,
        sys.executable,
        "-m",
        "ketch.runtime.oci_cli.main",
        "--root",
        str(tmp_path / "state"),
    ]

    def runtime(*args: str) -> str:
        return subprocess.run(
            [*command, *args], cwd=bundle, capture_output=True, text=True, timeout=patient(15), check=True
        ).stdout

    with (tmp_path / "out").open("wb") as out:
        subprocess.run(
            [*command, "run", "-d", "one"], cwd=bundle, stdout=out, stderr=out, timeout=patient(15), check=True
        )
    try:
        deadline = time.monotonic() + patient(10)
        while not (rootfs / "tmp/ready").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        first, hooked = (tmp_path / "out").read_text().split("\n0022\n")[:2]
        for text in (first, hooked, (tmp_path / "hook").read_text(), runtime("exec", "one", "sh", "-c", look)):
            assert signals(text) == dict.fromkeys(FIELDS, 0)
        assert stat.S_IMODE((rootfs / "tmp/ready").stat().st_mode) == 0o644
        process = {**document["process"], "args": ["sh", "-c", "umask"], "user": {"uid": 0, "gid": 0, "umask": 0o027}}
        (tmp_path / "process.json").write_text(json.dumps(process))
        assert runtime("exec", "--process", str(tmp_path / "process.json"), "one") == "0027\n"
    finally:
        runtime("delete", "--force", "one")
    box.close()
    assert runtime_box.orphaned_cgroups(box.parent) == []
