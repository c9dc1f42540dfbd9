"""What a user's ``ketch build`` gives to the user's ketchd, which may not look into the client's process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import peers
from tests.support.engines import KETCH
from tests.support.rawapi import Api
from tests.support.run import unprivileged
from tests.support.waiting import patient, until

pytestmark = [
    pytest.mark.ketch_only,
    pytest.mark.skipif(os.geteuid() != 0, reason="the user is made by root"),
]
DOCKERFILE = """\
FROM busybox
COPY a .
RUN --mount=type=ssh trap 'exit 0' USR1; while test -S $SSH_AUTH_SOCK; do sleep 0.05; done; exit 1
"""


@pytest.fixture
def place(tmp_path):
    """A directory of the user's, with a context in it."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "context/a").write_text("a")
    unprivileged.give(tmp_path)
    return tmp_path


def built(engine, place, *words: str, stdin: bytes = b"") -> str:
    """What a build says that the user asks for."""
    environment = {"DOCKER_HOST": engine.host, "DOCKER_CONFIG": str(place), "PATH": peers.path()}
    done = subprocess.run(
        [*engine.user.command("ketch"), "build", "--progress=plain", *words],
        env={**engine.user.environment(), **environment},
        input=stdin,
        capture_output=True,
        cwd=place,
        timeout=patient(30),
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stderr.decode()


@contextlib.contextmanager
def agent(path):
    """An agent of the user's, of which the step asks something: busybox has no program that speaks to such sockets."""
    with socket.socket(socket.AF_UNIX) as s, ThreadPoolExecutor(2) as pool:
        s.bind(str(path))
        s.settimeout(patient(20))
        os.chown(path, unprivileged.UID, unprivileged.UID)
        s.listen()

        def serve() -> None:
            connection, _ = s.accept()
            with connection:
                assert connection.recv(100) == b"asked"
                connection.sendall(b"answer")

        def ask() -> None:
            until(lambda: step() != 0, "the step runs")
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(f"/proc/{step()}/root/run/buildkit/ssh_agent.0")
                asking.sendall(b"asked")
                assert asking.recv(100) == b"answer"
            os.kill(step(), signal.SIGUSR1)

        both = [pool.submit(one) for one in (serve, ask)]
        yield
        for one in both:
            one.result(patient(30))


def step() -> int:
    """The pid of the step's shell; 0: it does not run."""
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"trap 'exit 0' USR1" not in (directory / "cmdline").read_bytes():
                continue
            first = re.search(r"^NSpid:.*\t1$", (directory / "status").read_text(), re.MULTILINE)  # no child of it
            if first and (directory / "root/run/buildkit/ssh_agent.0").exists():
                return int(directory.name)
    return 0


def test_an_agent(users_engine, place):
    """Steps speak to the user's agent."""
    with agent(place / "agent"):
        built(users_engine, place, f"--ssh=default={place}/agent", "-t", "said", "context")
    assert users_engine.docker("run", "--rm", "said", "cat", "/a").out == "a"


def test_an_agent_and_an_archive(users_engine, place):
    """A context from standard input is read once: nothing is tried that could fail."""
    packed = subprocess.run(["tar", "-C", str(place / "context"), "-c", "."], capture_output=True, check=True).stdout
    with agent(place / "agent"):
        built(users_engine, place, "--no-cache", f"--ssh=default={place}/agent", "-", stdin=packed)


def test_a_cache_in_a_directory(users_engine, place):
    """It is written, and read after the engine's own is gone; results come back as files."""
    (place / "context/Dockerfile").write_text("FROM busybox\nCOPY a .\nRUN echo b > b\n")
    built(users_engine, place, "--cache-to=type=local,dest=cache", "context")
    users_engine.ketch("builder", "prune", "-af")
    words = ("--cache-from=type=local,src=cache", "-o", "type=local,dest=out")
    assert "RUN echo b > b\n" in built(users_engine, place, *words, "context")
    assert (place / "out/b").read_text() == "b\n"
    assert (place / "out/a").stat().st_uid == unprivileged.UID


def by_root(engine, *words: str) -> subprocess.CompletedProcess[str]:
    """A build that root asks for."""
    command = [KETCH, "build", "--progress=plain", *words]
    return subprocess.run(command, env=engine.environment(), capture_output=True, text=True, check=False)


def test_another_user(users_engine, place):
    """Root may ask a user's ketchd for a build, which may not read what root may: files are sent, agents are not."""
    (place / "context/a").chmod(0o600)
    (place / "context/Dockerfile").write_text("FROM busybox\nCOPY a .\n")
    sent = by_root(users_engine, "-t", "sent", str(place / "context"))
    assert sent.returncode == 0, sent.stderr
    assert users_engine.docker("run", "--rm", "sent", "cat", "/a").out == "a"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(place / "agent"))
        done = by_root(users_engine, f"--ssh=default={place}/agent", str(place / "context"))
    assert done.returncode == 1
    assert "another user's, so it cannot reach the agent" in done.stderr


@pytest.mark.parametrize("message", [b"1 2", b"x", b" "])
def test_no_descriptors(users_engine, message):
    """A connection for descriptors by which none come is closed."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(patient(10))
        s.connect(users_engine.socket)
        s.sendall(b"POST /ketch/descriptors HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        assert b"\r\nKetch-Descriptors: " in s.recv(1000)
        s.sendall(message)
        assert s.recv(1) == b""
    status, answer = Api(users_engine.socket)("POST", "/ketch/descriptors")
    assert status == 400
    assert "it needs the connection itself" in answer["message"]
