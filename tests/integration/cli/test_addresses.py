"""Daemons at other addresses than a socket here: TLS with a context or Docker's variables, and ssh."""

from __future__ import annotations

import grp  # noqa: F401 - a user without rights may not reach the interpreter's modules any more
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ketch.client import transport
from ketch.errors import KetchError
from tests.support.engines import BIN, KETCH
from tests.support.programs import need
from tests.support.registries.registries import free_port, listens
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.ketch_only
BIG = 5_000_000


def ketch(environment, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [KETCH, *args], input=stdin, capture_output=True, env=environment, timeout=patient(60), check=False
    )


def check_streams(environment, *flags: str) -> None:
    """Both directions, with an end of its own for each: what goes in comes back, however much it is."""
    data = os.urandom(BIG)
    done = ketch(
        environment, *flags, "run", "-i", "--rm", "busybox", "sh", "-c", "cat; echo end >&2; exit 7", stdin=data
    )
    assert (done.returncode, done.stdout == data, done.stderr) == (7, True, b"end\n")


def test_tls(secured, tmp_path):
    engine, flags = secured
    host, verify, *_ = (word for word in flags("client") if word not in ("-H",))
    assert verify == "--tlsverify"
    environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path / "config")}
    for name in ("DOCKER_HOST", "KETCH_HOST"):
        environment.pop(name, None)
    check_streams(environment, *flags("client"))
    without_scheme = [word.removeprefix("tcp://") for word in flags("client")]
    assert ketch(environment, *without_scheme, "version", "-f", "{{.Server.Os}}").stdout == b"linux\n"

    files = ",".join(
        f"{key}={tmp_path}/{name}"
        for key, name in (("ca", "authority.pem"), ("cert", "client.pem"), ("key", "client.key"))
    )
    made = ketch(environment, "context", "create", "safe", "--docker", f"host={host},{files}")
    assert made.returncode == 0, made.stderr
    assert ketch(environment, "-c", "safe", "run", "--rm", "busybox", "echo", "hello").stdout == b"hello\n"
    ketch(environment, "context", "use", "safe")
    check_streams(environment)

    folder = tmp_path / "certificates"
    folder.mkdir()
    for ours, name in (("authority.pem", "ca.pem"), ("client.pem", "cert.pem"), ("client.key", "key.pem")):
        (folder / name).write_bytes((tmp_path / ours).read_bytes())
    by_variables = {**environment, "DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}
    assert ketch(by_variables, "version", "-f", "{{.Server.Os}}").stdout == b"linux\n"
    program = "import ketch; print(ketch.run('busybox', ['cat'], input='hello').text)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env=by_variables, timeout=patient(60), check=False
    )
    assert done.stdout == b"hello\n", done.stderr

    refused = {
        "a certificate that the server does not know": flags("intruder"),
        "a server that the client does not know": [*flags("client"), "--tlscacert", f"{tmp_path}/stranger.pem"],
        "none": ["-H", host],
        "not TLS": ["-H", f"tcp://localhost:{host.rpartition(':')[2]}", "--tls=false"],
    }
    for why, words in refused.items():
        done = ketch(environment, *words, "ps")
        assert done.returncode == 1, why
        assert b"Traceback" not in done.stderr, why
        assert done.stderr.startswith(b"ketch: "), why
    assert engine.ketch("ps", "-q").out == ""


@pytest.fixture
def far(engine, tmp_path, monkeypatch):
    """An address of ssh, and the environment of a client that may use it; the other side finds the engine."""
    pytest.importorskip("asyncssh")  # the server's
    ssh = need("ssh")
    for name in ("host", "user"):
        subprocess.run([need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(f'#!/bin/sh\nexec {ssh} -F {tmp_path}/config "$@"\n')
    (tmp_path / "bin/ssh").chmod(0o755)
    port = free_port()
    (tmp_path / "config").write_text(
        f"IdentityFile {tmp_path}/user\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
        f"Host Named\n  HostName 127.0.0.1\n  Port {port}\n"
    )
    command = [sys.executable, "-m", "tests.support.clients.ssh_server", str(port)]
    there = {**engine.environment(), "PATH": f"{BIN}:{os.environ['PATH']}"}
    here = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "DOCKER_CONFIG": str(tmp_path / "settings")}
    for name in ("DOCKER_HOST", "KETCH_HOST"):
        here.pop(name, None)
    with subprocess.Popen([*command, f"{tmp_path}/user.pub", f"{tmp_path}/host"], env=there) as server:
        try:
            until(lambda: listens(f"127.0.0.1:{port}"), "the ssh server does not listen")
            yield f"ssh://me@127.0.0.1:{port}", here
        finally:
            server.terminate()


def test_ssh(engine, far):
    address, environment = far
    check_streams(environment, "-H", address)
    made = ketch(environment, "context", "create", "far", "--docker", f"host={address}{engine.socket}")
    assert made.returncode == 0, made.stderr
    assert ketch(environment, "-c", "far", "version", "-f", "{{.Server.Os}}").stdout == b"linux\n"
    program = """
import sys, ketch
for way in {"url": sys.argv[1]}, {"context": "far"}:
    with ketch.connect(**way) as engine, engine.container("busybox") as box:
        print(engine.run("busybox", ["cat"], input="hello").text, end=" ")
        print(box.exec(["echo", "there"]).text, end="")
"""
    words = [sys.executable, "-X", "dev", "-W", "error", "-c", program, address]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=patient(60), check=False)
    assert (done.stdout, done.stderr) == ("hello there\n" * 2, "")
    wrong = ketch(environment, "-H", f"{address}/nowhere", "ps")
    assert wrong.returncode == 1
    assert b"cannot connect to the daemon at unix:///nowhere" in wrong.stderr
    closed = ketch(environment, "-H", "ssh://127.0.0.1:1", "ps")
    assert closed.returncode == 1
    assert b"Traceback" not in closed.stderr


def test_ssh_has_settings_for_names_with_capitals(far):
    _, environment = far
    assert ketch(environment, "-H", "ssh://me@Named", "version", "-f", "{{.Server.Os}}").stdout == b"linux\n"


def test_an_interrupt_at_the_terminal_reaches_the_container_through_ssh(far):
    address, environment = far
    program = "trap 'echo told; exit 3' INT; echo ready; while :; do sleep 0.1; done"
    words = [KETCH, "-H", address, "run", "--rm", "busybox", "sh", "-c", program]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment, start_new_session=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        os.killpg(client.pid, signal.SIGINT)  # as a terminal does: to all that are in its foreground
        assert client.stdout.read() == b"told\n"
    assert client.returncode == 3


@pytest.mark.parametrize(("mode", "said"), [(0o660, "it is for root and the group "), (0o600, "its owner's alone")])
def test_who_may_use_a_socket(tmp_path, mode, said):
    path = tmp_path / "s.sock"
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(mode)
        answer = as_nobody(lambda: transport.connect(f"unix://{path}").close())
    assert answer.startswith(f"cannot connect to the daemon at unix://{path}: Permission denied")
    assert said in answer


def as_nobody(action: Callable[[], None]) -> str:
    """What an action says that fails for a user without rights: the message and the hint."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            action()
        except KetchError as e:
            os.write(writer, f"{e.message}\n{e.hint}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as f:
        answer = f.read()
    os.waitpid(pid, 0)
    return answer
