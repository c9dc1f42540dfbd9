"""NOTIFY_SOCKET: a service manager hears from the runtime when the program in the container is ready."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ketch.linux import fdpass
from tests.support.boxes import runtime_box
from tests.support.boxes.runtime_cli import Runtime, without_trace
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(60), *runtime_box.NEEDED]

SLEEP = ["sleep", "60"]


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """The command line; it must leave the host as it was."""
    with without_trace(Runtime(tmp_path, runtime_box.make_rootfs(tmp_path / "image"))) as runtime:
        yield runtime


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager's socket, which the environment names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(patient(10))
        name = str(tmp_path / "manager")
        listener.bind(name if request.param == "path" else f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", name if request.param == "path" else f"@{name}")
        yield listener


def begin(runtime: Runtime, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "ketch.runtime.oci_cli.main", "--root", str(runtime.root), *command],
        cwd=runtime.bundle,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def container_socket(runtime: Runtime, name: str) -> str:
    """The socket of a running container, as it is seen there."""
    return f"/proc/{runtime.state(name)['pid']}/root/run/notify/notify.sock"


def say(runtime: Runtime, name: str, message: bytes) -> None:
    """What a program in a running container says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message, container_socket(runtime, name))


def is_running(runtime: Runtime, name: str) -> bool:
    found = json.loads(runtime("list", "-f", "json").stdout)
    return any(one["id"] == name and one["status"] == "running" for one in found)


def test_start_waits_until_the_program_is_ready(runtime: Runtime, manager: socket.socket) -> None:
    runtime.configure(["sh", "-c", f"echo $NOTIFY_SOCKET; exec {' '.join(SLEEP)}"])
    output = runtime.directory / "out"
    runtime.create_detached("one", output)
    start = begin(runtime, "start", "one")
    until(lambda: is_running(runtime, "one"), "the container runs")
    until(lambda: output.read_text() == "/run/notify/notify.sock\n", output.read_text)
    say(runtime, "one", b"STATUS=nearly\nMAINPID=1")
    assert start.poll() is None
    say(runtime, "one", b"STATUS=now\nREADY=1")
    assert manager.recv(4096) == b"READY=1\nMAINPID=%d\n" % runtime.state("one")["pid"]
    barrier, (fd,) = fdpass.recv(manager)
    assert barrier == b"BARRIER=1"
    assert start.poll() is None
    os.close(fd)
    assert (start.wait(patient(10)), start.communicate()[1]) == (0, b"")


def test_a_runtime_in_the_foreground_is_the_main_process(runtime: Runtime, manager: socket.socket) -> None:
    runtime.configure(SLEEP)
    run = begin(runtime, "run", "one")
    until(lambda: is_running(runtime, "one"), "the container runs")
    say(runtime, "one", b"READY=1")
    assert manager.recv(4096) == b"READY=1\nMAINPID=%d\n" % run.pid
    runtime("kill", "one", "KILL")
    assert run.wait(patient(10)) == 137


def test_a_program_that_ends_was_not_ready(runtime: Runtime, manager: socket.socket) -> None:
    runtime.configure(["true"])
    runtime.create_detached("one", runtime.directory / "out")
    runtime("start", "one")
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


def test_a_start_that_fails_leaves_nothing(runtime: Runtime, manager: socket.socket) -> None:
    runtime.configure(SLEEP, {"hooks": {"poststart": [{"path": "/no/such/hook"}]}})
    assert "/no/such/hook" in runtime("run", "-d", "one", code=1).stderr
    assert not (runtime.root / "one").exists()
    assert manager


def test_only_who_asks_gets_a_socket(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.configure(["sh", "-c", "echo ${NOTIFY_SOCKET-none}; ls -d /run/notify"])
    runtime.create_detached("one", runtime.directory / "out")
    monkeypatch.setenv("NOTIFY_SOCKET", str(runtime.directory / "nobody"))
    runtime("start", "one")
    until(lambda: runtime.state("one")["status"] == "stopped", "the program ends")
    assert (runtime.directory / "out").read_text().splitlines()[:1] == ["none"]


def test_an_address_of_no_unix_socket_is_refused(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1234")
    runtime.configure(SLEEP)
    assert "vsock:2:1234" in runtime("run", "-d", "one", code=1).stderr
    assert not (runtime.root / "one").exists()
