"""A real engine for the integration tests: ketchd on roots, bridge and cgroup of its own, with the real clients.

``--engine=dockerd`` runs the tests that are about behaviour against Debian's dockerd instead, to see that the
tests themselves are right.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import pytest

from tests.integration.leaks import Census
from tests.integration.terminal import Terminal

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(os.path.dirname(sys.executable))
DOCKER = shutil.which("docker", path="/usr/local/bin:/usr/bin") or "docker"


@dataclass
class Result:
    """What a program answered."""

    code: int
    out: str
    err: str


class Engine:
    """One daemon, started and stopped by the tests."""

    def __init__(self, kind: str, name: str = "kt0") -> None:
        self.kind = kind
        self.name = name
        self.root = tempfile.mkdtemp(prefix="kt-", dir="/tmp")
        self.socket = os.path.join(self.root, "s.sock")
        self.log_path = os.path.join(self.root, "log")
        self.pidfile = os.path.join(self.root, "pid")
        self.extra: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def data_root(self) -> str:
        return os.path.join(self.root, "data")

    @property
    def exec_root(self) -> str:
        return os.path.join(self.root, "exec")

    def command(self) -> list[str]:
        common = [
            "--data-root", self.data_root, "--exec-root", self.exec_root, "-H", self.host, "--pidfile", self.pidfile,
        ]  # fmt: skip
        if self.kind == "dockerd":
            return ["/usr/sbin/dockerd", *common, "--bridge", "none", "--iptables=false", *self.extra]
        return [
            os.path.join(BIN, "ketchd"), *common, "--bridge", self.name, "--cgroup-parent", f"/{self.name}", *self.extra
        ]  # fmt: skip

    def start(self) -> float:
        """Start and wait until it answers; returns the seconds that it took."""
        begin = time.monotonic()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = begin + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"{self.kind} ended at once:\n{self.log()}")
            if os.path.exists(self.socket) and self.docker("version", check=False).code == 0:
                return time.monotonic() - begin
            time.sleep(0.01)
        raise AssertionError(f"{self.kind} does not answer:\n{self.log()}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait for the end."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None

    def log(self) -> str:
        with contextlib.suppress(FileNotFoundError), open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()[-8000:]
        return ""

    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.host, "KETCH_HOST": self.host}

    def run(self, command: list[str], *, stdin: bytes = b"", check: bool = True, timeout: float = 60) -> Result:
        done = subprocess.run(
            command, input=stdin, capture_output=True, env=self.environment(), timeout=timeout, check=False
        )
        result = Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        if check:
            assert result.code == 0, f"{' '.join(command)}\n{result.out}{result.err}\n--- log\n{self.log()}"
        return result

    def docker(self, *args: str, **options: object) -> Result:
        return self.run([DOCKER, *args], **options)  # type: ignore[arg-type]

    def ketch(self, *args: str, **options: object) -> Result:
        return self.run([os.path.join(BIN, "ketch"), *args], **options)  # type: ignore[arg-type]

    def terminal(self, *command: str) -> Terminal:
        """Run a client on a terminal of its own; ``docker`` and ``ketch`` are found."""
        programs = {"docker": DOCKER, "ketch": os.path.join(BIN, "ketch")}
        return Terminal([programs.get(command[0], command[0]), *command[1:]], self.environment())

    def remove_all(self) -> None:
        ids = self.docker("ps", "-aq", check=False).out.split()
        if ids:
            self.docker("rm", "-fv", *ids, check=False)

    def delete(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", default="ketch", choices=("ketch", "dockerd"), help="which engine to test")


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest):
    """The daemon that most tests share, with ``busybox`` in it; at the end nothing may be left."""
    before = Census.take()
    one = Engine(request.config.getoption("--engine"))
    one.start()
    if one.kind == "ketch":
        one.run(["curl", "-sf", "--unix-socket", one.socket, "-X", "POST", "http://d/ketch/images/bootstrap?ref=busybox"])
    else:
        _import_busybox(one)
    yield one
    failed = request.session.testsfailed
    one.remove_all()
    one.stop()
    if failed:
        sys.stderr.write(f"\n--- {one.kind}'s log\n{one.log()}\n")
    one.delete()
    if one.kind == "ketch":
        assert Census.take().beyond(before) == []


def _import_busybox(one: Engine) -> None:
    with tempfile.TemporaryDirectory() as root:
        os.mkdir(f"{root}/bin")
        shutil.copy("/bin/busybox", f"{root}/bin/busybox")
        names = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
        for name in set(names) - {"busybox"}:
            os.symlink("busybox", f"{root}/bin/{name}")
        tar = subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True).stdout
    one.docker("import", "-c", 'CMD ["sh"]', "-", "busybox", stdin=tar)


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest):
    """No test leaves a container to the next one."""
    yield
    if "engine" in request.fixturenames:
        request.getfixturevalue("engine").remove_all()


@pytest.fixture(params=["docker", "ketch"])
def client(request: pytest.FixtureRequest, engine: Engine):
    """The same command line through both clients."""
    return getattr(engine, request.param)


@pytest.fixture
def own_engine():
    """A daemon for one test alone: to be killed, restarted, started with other flags."""
    before = Census.take()
    one = Engine("ketch", name="kt1")
    yield one
    if one.process is None:
        one.start()
    one.remove_all()
    one.stop()
    one.delete()
    assert Census.take().beyond(before) == []
