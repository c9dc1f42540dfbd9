"""Daemons for tests: ketchd (or dockerd) on roots, bridge and cgroup of its own, and the clients that talk to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import docker

from ketch.storage import file_lock
from tests.support import peers
from tests.support.programs import need
from tests.support.rawapi import Api
from tests.support.run import unprivileged
from tests.support.run.session import MARK, SESSION
from tests.support.terminal import Piped, Terminal
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ketch.storage.file_lock import FileLock
    from tests.support.run.unprivileged import User

_NUMBERS = itertools.count(1)
BIN = os.path.dirname(sys.executable)
_FIRST_IDS, _IDS = 1 << 31, 1 << 22  # for 64 containers
API = peers.DOCKERD_API  # what docker-py asks for
# Registries elsewhere than on this machine answer at once that they do not: nothing of a test leaves it.
_DEAD = "http://127.0.0.1:1"
NOWHERE = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _DEAD),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost,::1"),
}
KETCH = os.path.join(BIN, "ketch")


@dataclass
class Result:
    """What a program answered."""

    code: int
    out: str
    err: str


class Client:
    """A command line client that talks to one engine; call it to run one command."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name

    @property
    def program(self) -> str:
        """Its path; without a docker client the test is skipped."""
        return KETCH if self.name == "ketch" else peers.docker()

    @property
    def command(self) -> list[str]:
        """How it is started: Ketch's own as the engine's user, whose files it hands over."""
        if self.name != "ketch" or self.engine.user is None:
            return [self.program]
        with contextlib.suppress(FileNotFoundError):  # what docker, which is root's, has written there
            os.chown(os.path.join(self.engine.root, "config.json"), unprivileged.UID, unprivileged.UID)
        return self.engine.user.command("ketch")

    def __call__(
        self,
        *args: str,
        stdin: bytes = b"",
        check: bool = True,
        timeout: float = 30,
        cwd: str | None = None,
        **environment: str,
    ) -> Result:
        """Run to the end. ``check``: a failure of the command is a failure of the test."""
        done = subprocess.run(
            [*self.command, *args],
            input=stdin,
            capture_output=True,
            env={**self.engine.environment(), **environment},
            timeout=patient(timeout),
            check=False,
            cwd=cwd,
        )
        result = Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        if check:
            assert result.code == 0, f"{self.name} {' '.join(args)} → {result.code}\n{result.out}{result.err}"
        return result

    def terminal(self, *args: str) -> Terminal:
        """Run on a terminal of its own."""
        return Terminal([*self.command, *args], self.engine.environment())

    def piped(self, *args: str) -> Piped:
        """Run with pipes, in the background."""
        return Piped([*self.command, *args], self.engine.environment())


class Engine:
    """One daemon, started and stopped by the tests. ``extra``: further flags, ``settings``: more environment."""

    def __init__(self, kind: str, suffix: str = "a") -> None:
        self.kind = kind
        # Its bridge, tables and cgroups are named so; what one that failed has left is in no other one's way.
        self.name = f"{SESSION}{next(_NUMBERS)}{suffix}"
        self.root = f"/tmp/{self.name}"  # short: sockets are in it
        os.mkdir(self.root, 0o700)
        self.socket = os.path.join(self.root, "s.sock")
        self.log_path = os.path.join(self.root, "log")
        self.pidfile = os.path.join(self.root, "pid")
        self.data_root = os.path.join(self.root, "data")
        self.exec_root = os.path.join(self.root, "exec")
        self.extra: list[str] = []
        self.prefix: list[str] = []
        self.user: User | None = None
        self.own_network = False  # a dockerd makes docker0 and sets policies
        self._namespaces: peers.Namespaces | None = None
        self.settings: dict[str, str] = {}
        self._ids: FileLock | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.docker = Client(self, "docker")
        self.ketch = Client(self, "ketch")
        # For what stands around a test: ours starts in a third of docker's time, and is there without the peers' root.
        self.client = self.docker if kind == "dockerd" and not peers.MISSING else self.ketch
        if not peers.MISSING:
            os.symlink(peers.plugins(), os.path.join(self.root, "cli-plugins"))

    def user_namespaces(self, *flags: str) -> None:
        """Start it with these flags, and with ids for user namespaces that no other test's daemon has."""
        first = _FIRST_IDS
        while self._ids is None:
            with contextlib.suppress(file_lock.Held):
                self._ids = file_lock.take_named(f"tests-ids-{first}")
                break
            first += _IDS
        self.extra += ["--userns-pool", f"{first}:{_IDS}", *flags]
        os.chmod(self.root, 0o711)  # other runtimes' containers come to their roots as ordinary users

    def rootless(self) -> None:
        """Start it as a user without rights."""
        need("newuidmap")
        self.user = unprivileged.user()
        os.chown(self.root, unprivileged.UID, unprivileged.UID)

    def give(self, *paths: Path) -> None:
        """Have what is the test's belong to the user whose the engine is, if it is not root's."""
        for path in paths if self.user is not None else ():
            unprivileged.give_tree(path)

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def environment(self) -> dict[str, str]:
        """For clients: where the daemon is, and no settings of the person who runs the tests."""
        own = {"DOCKER_HOST": self.host, "DOCKER_CONFIG": self.root, "HOME": self.root, "PATH": peers.path()}
        own["GOGC"] = "400"  # docker, buildx and compose live too briefly to collect garbage in a tenth of their time
        theirs = {
            name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"
        }  # it hides late errors
        users = {} if self.user is None else {**self.user.environment(), "HOME": self.root}
        return {**theirs, **users, **own}

    def command(self) -> list[str]:
        """The daemon's command line."""
        roots = ["--data-root", self.data_root, "--exec-root", self.exec_root, "-H", self.host]
        # No container's question about a name leaves this machine.
        common = [*roots, "--pidfile", self.pidfile, "--dns", "127.0.0.1", *self.extra]
        if self.kind == "dockerd":
            if self._namespaces is not None:  # containers of the last one may run there
                return self._namespaces.command("dockerd", *common)
            return peers.command(*self.prefix, "dockerd", *common, network=self.own_network)
        program = [os.path.join(BIN, "ketchd")] if self.user is None else self.user.command("ketchd")
        return [
            *self.prefix,
            *program,
            *common,
            "--bridge",
            self.name,
            "--cgroup-parent",
            f"/{self.name}",
        ]

    def start(self) -> float:
        """Start and wait until it answers; returns the seconds that it took."""
        self.launch()
        if self.kind == "dockerd":
            self._until_it_runs()
        begin = time.monotonic()
        while not self.answers():
            assert self.process.poll() is None, f"{self.kind} ended at once:\n{self.log()}"
            assert time.monotonic() < begin + patient(30), f"{self.kind} does not answer:\n{self.log()}"
            time.sleep(0.005)
        return time.monotonic() - begin

    def _until_it_runs(self) -> None:
        """Until its namespaces are made, which is not the daemon's own time."""
        assert self.process
        while os.path.basename(os.readlink(f"/proc/{self.process.pid}/exe")) != "dockerd":
            assert self.process.poll() is None, f"{self.kind} ended at once:\n{self.log()}"
            time.sleep(0.001)
        if self._namespaces is None:
            self._namespaces = peers.Namespaces(self.process.pid)

    def launch(self) -> None:
        """Start, and do not wait."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.daemon_environment()
            )

    def daemon_environment(self) -> dict[str, str]:
        """The daemon's own environment."""
        users = self.user.environment() if self.user is not None else {}
        return {**os.environ, **NOWHERE, MARK: self.name, **users, **self.settings}

    def answers(self) -> bool:
        """Whether the daemon answers a ping."""
        with socket.socket(socket.AF_UNIX) as s, contextlib.suppress(OSError):
            s.settimeout(patient(10))
            s.connect(self.socket)
            s.sendall(b"GET /_ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return s.recv(100).startswith(b"HTTP/1.1 200")
        return False

    def py(self, **options: object) -> docker.DockerClient:
        """A docker-py client; the caller closes it."""
        return docker.DockerClient(base_url=self.host, version=API, timeout=patient(30), **options)

    def inspect(self, name: str) -> dict[str, Any]:
        """A container, as the API shows it."""
        return Api(self.socket).must("GET", f"/containers/{name}/json")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the daemon's exit code."""
        assert self.process
        self.process.send_signal(number)
        code = self.process.wait(patient(30))
        self.process = None
        return code

    def log(self) -> str:
        """The end of the daemon's log."""
        with contextlib.suppress(FileNotFoundError), open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()[-2500:]
        return ""

    def add_busybox(self) -> None:
        """Have ``busybox:latest``: bootstrapped by Ketch, imported into others."""
        need("busybox")
        if self.kind == "ketch":
            with contextlib.closing(self.py()) as client:
                url = client.api._url("/ketch/images/bootstrap")
                answer = client.api.post(url.replace(f"/v{API}", ""), params={"ref": "busybox"}, timeout=patient(30))
                assert answer.ok, answer.text
        else:
            self.docker("import", "-c", 'CMD ["sh"]', "-", "busybox", stdin=busybox_tar())

    @contextlib.contextmanager
    def running(self) -> Iterator[Engine]:
        """The engine, started, with ``busybox``; nothing of it is left afterwards."""
        try:
            self.start()
            self.add_busybox()
            yield self
        finally:
            if self.process is not None:
                with contextlib.suppress(AssertionError):
                    self.remove_all()
            self.delete()

    def has_containers(self) -> bool:
        """Whether it would find some on its disk, or a disk that is not as it should be."""
        place = os.path.join(self.data_root, "containers")
        return os.path.lexists(self.data_root) and not (os.path.isdir(place) and not os.listdir(place))

    def remove_all(self) -> None:
        """Remove every container with its volumes, and every network that nobody needs then."""
        api = Api(self.socket)
        _, found = api("GET", "/containers/json", all=1)
        with ThreadPoolExecutor(8) as pool:
            for one in found or ():
                pool.submit(api, "DELETE", f"/containers/{one['Id']}", force=1, v=1)
        api("POST", "/networks/prune")

    def delete(self) -> None:
        """Stop the daemon if it runs, and remove its files."""
        if self.process is not None:
            self.stop()
        if self._namespaces is not None:
            self._namespaces.close()
            self._namespaces = None
        if self._ids is not None:
            self._ids.close()
        subprocess.run(["rm", "-rf", self.root], check=False)  # of any depth


def busybox_tar() -> bytes:
    """A root file system with busybox and its applets."""
    with tempfile.TemporaryDirectory() as root:
        os.mkdir(f"{root}/bin")
        shutil.copy("/bin/busybox", f"{root}/bin/busybox")
        names = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
        for name in set(names) - {"busybox"}:
            os.symlink("busybox", f"{root}/bin/{name}")
        for name in ("etc", "tmp", "root"):
            os.mkdir(f"{root}/{name}")
        with open(f"{root}/etc/passwd", "w", encoding="utf-8") as f:
            f.write("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")
        with open(f"{root}/etc/group", "w", encoding="utf-8") as f:
            f.write("root:x:0:\nnogroup:x:65534:\n")
        return subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True).stdout
