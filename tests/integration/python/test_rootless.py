"""The engine of a program's own without root."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.support.programs import need
from tests.support.run import unprivileged
from tests.support.waiting import until

pytestmark = [
    pytest.mark.ketch_only,
    pytest.mark.skipif(os.geteuid() != 0, reason="the user is made by root"),
]
PROGRAM = """
import sys, ketch
engine = ketch.Engine()
engine.images.bootstrap("busybox")
with engine.container("busybox", ["sleep", "1000"]) as box:
    print(engine.access.state)
    print(box.exec("id -u; ls /sys/class/net").text.split())
    box.put("/a/b", b"bytes", owner=(5, 5))
    print(box.get("/a/b"), box.exec(["stat", "-c", "%u", "/a/b"]).text.strip())
    try:
        box.exec("(sleep 1001 &); sleep 1002", timeout=0.5)
    except ketch.TimedOut:
        print([line for line in box.exec(["ps", "-o", "args"]).text.splitlines() if line.startswith("sleep")])
    with engine.container("busybox", ["httpd", "-f", "-h", "/etc"], network=True, name="web"):
        print(engine.run("busybox", ["wget", "-qO-", "http://web/group"], network=True).exit_code)
    print("ready", flush=True)
    sys.stdin.read()
"""


MARK = f"KETCH_TEST_PROGRAM={os.getpid()}"  # other runs have a user with the same number


def processes() -> list[str]:
    """What the program has started and is no zombie: all that has its environment."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as environment, open(f"/proc/{pid}/cmdline", "rb") as command:
                if MARK.encode() in environment.read().split(b"\0"):
                    found.append(f"{pid} {command.read()[:60]!r}")
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or the machine's first
            continue
    return found


@pytest.fixture
def program():
    need("newuidmap")
    need("busybox")
    user = unprivileged.user()
    with subprocess.Popen(
        user.python(PROGRAM),
        env={**user.environment(), **dict([MARK.split("=")])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_a_users_program(program):
    """All of it works; the engine's files are in the user's home, and nothing runs when the program was killed."""
    assert program.stdout is not None
    assert program.stderr is not None
    lines = []
    while (line := program.stdout.readline().strip()) != "ready":
        assert line, program.stderr.read()
        lines.append(line)
    assert lines == [
        f"{unprivileged.user().home}/.local/share/ketch-python",
        "['0', 'lo']",
        "b'bytes' 5",
        "['sleep 1000']",
        "0",
    ]
    assert len(processes()) > 3
    program.send_signal(signal.SIGKILL)
    until(lambda: processes() == [], lambda: f"they end: {processes()}")
