"""ketch-runtime under somebody else's engine: Debian's dockerd and containerd start containers with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.integration import runtime_box

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCKERD = shutil.which("dockerd", path="/usr/sbin:/usr/bin")
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not DOCKERD or not shutil.which("docker"), reason="needs docker.io"),
    pytest.mark.skipif(not os.path.exists(runtime_box.BUSYBOX), reason="needs busybox-static"),
]


class Docker:
    """The docker client, talking to one daemon."""

    def __init__(self, host: str) -> None:
        self.host = host

    def __call__(self, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = ["docker", "-H", self.host, *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == code, done.stderr
        return done

    def run(self, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self("run", "--rm", "--network", "none", "--runtime", "ketch", *args, code=code)


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    place = tmp_path_factory.mktemp("dockerd")
    runtime = place / "runtime"
    runtime.write_text(f'#!/bin/sh\nexec {sys.executable} -m ketch.runtime.cli "$@"\n')
    runtime.chmod(0o755)
    host = f"unix://{place}/s"
    command = [str(DOCKERD), "--data-root", f"{place}/d", "--exec-root", f"{place}/e", "-H", host, "--pidfile",
               f"{place}/pid", "--bridge", "none", "--iptables=false", "--add-runtime", f"ketch={runtime}"]  # fmt: skip
    with (place / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_ready(daemon, host)
        client = Docker(host)
        image = runtime_box.make_rootfs(place / "image")
        tar = subprocess.run(["tar", "-C", str(image), "-c", "."], check=True, capture_output=True).stdout
        subprocess.run(
            ["docker", "-H", host, "import", "-", "box"], input=tar, check=True, capture_output=True, timeout=60
        )
        yield client
    finally:
        daemon.terminate()
        daemon.wait(30)
        _unmount_below(place)


def _wait_until_ready(daemon: subprocess.Popen[bytes], host: str) -> None:
    deadline = time.monotonic() + 30
    while subprocess.run(["docker", "-H", host, "version"], capture_output=True, check=False).returncode != 0:
        assert daemon.poll() is None, "dockerd ended"
        assert time.monotonic() < deadline, "dockerd does not answer"
        time.sleep(0.1)  # dockerd has nothing to wait on


def _unmount_below(place: Path) -> None:
    """dockerd leaves the pinned network namespace of `--network none` behind."""
    for line in reversed(runtime_box.host_mounts(place)):
        subprocess.run(["umount", line.split()[4]], check=False)


def test_streams_and_exit_codes(docker: Docker) -> None:
    done = docker.run("box", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/etc", 126, 'exec: "/etc": is a directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_errors_are_understood(docker: Docker, command: str, code: int, text: str) -> None:
    assert text in docker.run("box", command, code=code).stderr


def test_options_reach_the_container(docker: Docker) -> None:
    options = ["-u", "alice", "-w", "/work", "-m", "64m", "--read-only", "--tmpfs", "/t:size=1m", "--cap-drop", "ALL",
               "--ulimit", "nofile=64:64", "--hostname", "inside", "--sysctl", "net.ipv4.ip_forward=1"]  # fmt: skip
    script = "id -un; pwd; hostname; ulimit -n; grep CapBnd /proc/self/status; cat /proc/sys/net/ipv4/ip_forward"
    lines = docker.run(*options, "box", "sh", "-c", script).stdout.split()
    assert lines == ["alice", "/work", "inside", "64", "CapBnd:", "0" * 16, "1"]


def test_a_terminal(docker: Docker) -> None:
    assert docker.run("-t", "box", "tty").stdout.strip() == "/dev/pts/0"


def test_exec_pause_update_top_and_stop(docker: Docker) -> None:
    docker("run", "-d", "--name", "box1", "--network", "none", "--runtime", "ketch", "box", "sleep", "60")
    assert docker("exec", "-e", "A=1", "box1", "sh", "-c", "echo $A; exit 3", code=3).stdout == "1\n"
    assert "executable file not found" in docker("exec", "box1", "nosuch", code=126).stdout
    docker("pause", "box1")
    assert "Paused" in docker("ps").stdout
    docker("unpause", "box1")
    docker("update", "--pids-limit", "33", "box1")
    assert "sleep 60" in docker("top", "box1").stdout
    docker("kill", "-s", "KILL", "box1")
    assert docker("wait", "box1").stdout.strip() == "137"
    docker("rm", "box1")
