"""ketch-runtime under somebody else's engine: dockerd and containerd start containers with it."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.boxes import runtime_box
from tests.support.engines import Client, Engine, Result
from tests.support.runtimes.peer_place import write_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.timeout(120), *runtime_box.NEEDED]


class Docker:
    """The docker client, talking to one daemon."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self, *args: str, code: int = 0) -> Result:
        done = self._client(*args, check=False)
        assert done.code == code, done.err
        return done

    def run(self, *args: str, code: int = 0) -> Result:
        return self("run", "--rm", "--network", "none", "--runtime", "ketch", *args, code=code)


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    image = runtime_box.make_rootfs(tmp_path_factory.mktemp("image"))
    engine = Engine("dockerd", suffix="u")
    engine.own_network = True
    engine.extra = ["--add-runtime", f"ketch={write_runtime(engine.root)}"]
    try:
        engine.start()
        tar = subprocess.run(["tar", "-C", image, "-c", "."], check=True, capture_output=True).stdout
        engine.docker("import", "-", "box", stdin=tar)
        yield Docker(engine.docker)
        engine.remove_all()
    finally:
        engine.delete()


def test_streams_and_exit_codes(docker: Docker) -> None:
    done = docker.run("box", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (done.out, done.err) == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/etc", 126, 'exec: "/etc": is a directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_errors_are_understood(docker: Docker, command: str, code: int, text: str) -> None:
    assert text in docker.run("box", command, code=code).err


def test_options_reach_the_container(docker: Docker) -> None:
    options = shlex.split(
        "-u alice -w /work -m 64m --read-only --tmpfs /t:size=1m --cap-drop ALL --ulimit nofile=64:64 "
        "--hostname inside --sysctl net.ipv4.ip_forward=1"
    )
    script = "id -un; pwd; hostname; ulimit -n; grep CapBnd /proc/self/status; cat /proc/sys/net/ipv4/ip_forward"
    lines = docker.run(*options, "box", "sh", "-c", script).out.split()
    assert lines == ["alice", "/work", "inside", "64", "CapBnd:", "0" * 16, "1"]


def test_a_terminal(docker: Docker) -> None:
    assert docker.run("-t", "box", "tty").out.strip() == "/dev/pts/0"


def test_exec_pause_update_top_and_stop(docker: Docker) -> None:
    docker("run", "-d", "--name", "box1", "--network", "none", "--runtime", "ketch", "box", "sleep", "60")
    assert docker("exec", "-e", "A=1", "box1", "sh", "-c", "echo $A; exit 3", code=3).out == "1\n"
    assert "executable file not found" in docker("exec", "box1", "nosuch", code=127).out
    docker("pause", "box1")
    assert "Paused" in docker("ps").out
    docker("unpause", "box1")
    docker("update", "--pids-limit", "33", "box1")
    assert "sleep 60" in docker("top", "box1").out
    docker("kill", "-s", "KILL", "box1")
    assert docker("wait", "box1").out.strip() == "137"
    docker("rm", "box1")
