"""Attach and exec at the level of bytes and packets, and all of standard input."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import termios
import time

import pytest

from tests.support.boxes.monitor_box import own_kib
from tests.support.waiting import patient, until

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


def request(engine, method, path, body=b"", headers=""):
    """A connection on which a request is about to be sent, and the request's bytes."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(patient(15))
    sock.connect(engine.socket)
    length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return sock, f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}{length}\r\n".encode() + body


def everything(sock):
    parts = []
    with sock:
        while data := sock.recv(1 << 20):
            parts.append(data)
    return b"".join(parts)


def body_of(answer):
    return answer.partition(b"\r\n\r\n")[2]


def make_exec(engine, container, *command):
    body = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Cmd": command}
    sock, head = request(
        engine, "POST", f"/containers/{container}/exec", json.dumps(body).encode(), "Connection: close\r\n"
    )
    sock.sendall(head)
    return json.loads(body_of(everything(sock)))["Id"]


def frame(data, stream=1):
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def unframed(data):
    out = b""
    while data:
        length = int.from_bytes(data[4:8], "big")
        out, data = out + data[8 : 8 + length], data[8 + length :]
    return out


@pytest.fixture
def cat(engine):
    """A container that waits for a start and then copies its input to its output, once."""
    engine.docker("create", "-i", "--name", "cat", "busybox", "cat")
    return "cat"


@pytest.fixture
def box(engine):
    engine.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    return "box"


ATTACH = "/containers/cat/attach?stream=1&stdin=1&stdout=1&stderr=1"


@pytest.mark.ketch_only  # dockerd loses what its HTTP server has read too much
@pytest.mark.parametrize("headers", [UPGRADE, ""], ids=["upgrade", "old"])
@pytest.mark.parametrize("pieces", [1, 2, 40])
def test_input_in_the_packet_of_an_attach_request(engine, cat, headers, pieces):
    """However the bytes are cut into packets, the process gets what stands behind the request."""
    sock, data = request(engine, "POST", ATTACH, headers=headers)
    data += b"early \xff\0\r\n\r\nPOST /x HTTP/1.1\r\n\r\n"
    step = len(data) // pieces + 1
    for start in range(0, len(data), step):
        sock.sendall(data[start : start + step])
        time.sleep(0.002 if pieces > 1 else 0)  # makes packets of the pieces
    sock.shutdown(socket.SHUT_WR)
    engine.docker("start", "cat")
    assert unframed(body_of(everything(sock))) == b"early \xff\0\r\n\r\nPOST /x HTTP/1.1\r\n\r\n"
    assert engine.docker("wait", "cat").out == "0\n"


@pytest.mark.ketch_only
@pytest.mark.parametrize("first", [1, 5, 6, 30])
def test_a_request_whose_beginning_comes_alone(engine, cat, first):
    """Also a part of its first word: what stands behind the rest is the process's input."""
    sock, data = request(engine, "POST", ATTACH)
    sock.sendall(data[:first])
    until(lambda: fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)) == bytes(4), "it is not read")
    sock.sendall(data[first:] + b"early\n")
    sock.shutdown(socket.SHUT_WR)
    engine.docker("start", "cat")
    assert unframed(body_of(everything(sock))) == b"early\n"


@pytest.mark.ketch_only
@pytest.mark.parametrize("headers", [UPGRADE, ""], ids=["upgrade", "old"])
def test_input_in_the_packet_of_an_exec_request(engine, box, headers):
    ident, early = make_exec(engine, box, "cat"), os.urandom(60_000)
    sock, data = request(engine, "POST", f"/exec/{ident}/start", b'{"Detach":false,"Tty":false}', headers)
    sock.sendall(data + early)
    sock.shutdown(socket.SHUT_WR)
    assert unframed(body_of(everything(sock))) == early


@pytest.mark.parametrize("path", ["/_ping", "/containers/json", "/containers/cat/json", "/nowhere"])
def test_a_client_that_shuts_down_its_side_is_answered(engine, cat, path):
    for _ in range(20):
        sock, data = request(engine, "GET", path)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert everything(sock).startswith(b"HTTP/1.1 404" if path == "/nowhere" else b"HTTP/1.1 200")


def test_a_client_that_goes_in_the_middle_of_a_body_is_no_request(engine):
    sock, data = request(engine, "POST", "/containers/create?name=half", b'{"Image":"busybox"}')
    sock.sendall(data[:-5])
    sock.shutdown(socket.SHUT_WR)
    assert not everything(sock).startswith(b"HTTP/1.1 2")
    assert "half" not in engine.docker("ps", "-a", "--format", "{{.Names}}").out


@pytest.mark.ketch_only
def test_a_refused_attach_leaves_a_usable_connection(engine, cat):
    sock, missing = request(engine, "POST", ATTACH.replace("cat", "nobody"), headers=UPGRADE)
    _, good = request(engine, "GET", "/_ping")
    for _ in range(3):
        sock.sendall(missing)
        assert sock.recv(4096).startswith(b"HTTP/1.1 404")
        sock.sendall(good)
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    sock.sendall(missing + b"this is no request")
    answer = sock.recv(4096)
    assert answer.startswith(b"HTTP/1.1 404")
    with contextlib.suppress(ConnectionError):
        sock.sendall(b" and this is none")
        assert sock.recv(4096) == b""
    sock.close()


# -- standard input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["local", "json-file"])
def test_a_hundred_megabytes_in(engine, driver):
    """Through a pipe, without either daemon process keeping them."""
    with subprocess.Popen(["head", "-c", str(100 << 20), "/dev/zero"], stdout=subprocess.PIPE) as source:
        before = own_kib(engine.process.pid) if engine.kind == "ketch" else 0
        done = subprocess.run(
            [engine.docker.program, "run", "-i", "--rm", "--log-driver", driver, "busybox", "wc", "-c"],
            stdin=source.stdout,
            capture_output=True,
            env=engine.environment(),
            timeout=patient(60),
            check=True,
        )
    assert done.stdout.strip() == b"104857600"
    assert engine.kind != "ketch" or own_kib(engine.process.pid) < before + 8192


def test_stdin_once_in_each_run(engine, client):
    """The first client's end is the input's end, in the first run and in those after it."""
    client("create", "-i", "--name", "counter", "busybox", "wc", "-l")
    for lines in (1, 2, 3):
        result = client("start", "-ai", "counter", stdin=b"x\n" * lines)
        assert result.out.strip() == str(lines)


def test_stdin_stays_open_for_the_next_client(engine, client):
    """Without StdinOnce (a detached `-i`) a client's end is not the input's end."""
    client("run", "-d", "-i", "--name", "echo", "busybox", "sh", "-c", "while read x; do echo got $x; done")
    for word in ("one", "two"):
        with client.piped("attach", "echo") as typist:
            typist.send(f"{word}\n")
            typist.expect(f"got {word}\n")
            typist.close_stdin()
    assert client("inspect", "-f", "{{.State.Running}}", "echo").out == "true\n"


def test_attach_without_stdin(engine, client):
    client("run", "-d", "-i", "--name", "echo", "busybox", "sh", "-c", "echo up; read x; echo got $x; exit 4")
    with client.piped("attach", "--no-stdin", "echo") as watcher, client.piped("attach", "echo") as typist:
        for number, attached in enumerate((watcher, typist)):  # both are there when they see what is written now
            until(
                lambda number=number, attached=attached: sees(client, attached, f"seen {number}"), "it is not attached"
            )
        watcher.send("not for it\n")
        typist.send("hello\n")
        assert watcher.wait() == 4
    assert client("logs", "echo").out.endswith("\ngot hello\n")


def sees(client, attached, text: str) -> bool:
    """Whether an attached client gets what a container writes; the text is written at each call."""
    client("exec", "echo", "sh", "-c", f"echo {text} > /proc/1/fd/1")
    while text not in attached.text and attached.read(0.5):
        pass
    return text in attached.text


def test_signals_are_passed_on_unless_told_otherwise(engine, client):
    script = "trap 'echo caught; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    client("run", "-d", "--name", "trap", "busybox", "sh", "-c", script)
    with client.piped("attach", "--sig-proxy=false", "--no-stdin", "trap") as deaf:
        deadline = time.monotonic() + patient(10)
        while not client("logs", "trap").out and time.monotonic() < deadline:
            time.sleep(0.02)
        deaf.signal(signal.SIGTERM)
        client("exec", "trap", "true")
        assert client("logs", "trap").out == "up\n"
        assert client("inspect", "-f", "{{.State.Running}}", "trap").out == "true\n"
        client("rm", "-f", "trap")
        deaf.wait()
    with client.piped("run", "--name", "trap", "busybox", "sh", "-c", script) as attached:
        attached.expect("up\n")
        attached.signal(signal.SIGTERM)
        attached.expect("caught\n")
        assert attached.wait() == 5


def test_refused_attaches(engine, client):
    client("create", "--name", "idle", "busybox")
    result = client("attach", "idle", check=False)
    assert result.code == 1
    assert "cannot attach to a stopped container, start it first" in result.err.lower()
    client("run", "-d", "--name", "frozen", "busybox", "sleep", "1000")
    client("pause", "frozen")
    result = client("attach", "frozen", check=False)
    client("unpause", "frozen")
    assert result.code == 1
    assert "cannot attach to a paused container, unpause it first" in result.err.lower()


def test_the_api_waits_for_a_stopped_containers_start(engine, cat):
    sock, data = request(engine, "POST", ATTACH, headers=UPGRADE)
    sock.sendall(data)
    assert sock.recv(4096).startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    sock.sendall(b"x\n")
    engine.docker("start", "cat")
    assert sock.recv(4096) == frame(b"x\n")
    sock.shutdown(socket.SHUT_WR)
    assert everything(sock) == b""


def test_logs_and_stream_before_the_first_start(engine, cat):
    sock, data = request(engine, "POST", f"{ATTACH}&logs=1", headers=UPGRADE)
    sock.sendall(data)
    assert sock.recv(4096).startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    engine.docker("start", "cat")
    sock.sendall(b"x\n")
    assert sock.recv(4096) == frame(b"x\n")
    sock.shutdown(socket.SHUT_WR)
    assert everything(sock) == b""


# dockerd waits for the next start in the second case, a client that wants the end would wait for ever.
@pytest.mark.parametrize("stream", [0, pytest.param(1, marks=pytest.mark.ketch_only)])
def test_logs_of_a_container_that_has_ended(engine, stream):
    engine.docker("run", "--name", "cat", "busybox", "echo", "x")
    sock, data = request(engine, "POST", f"/containers/cat/attach?logs=1&stdout=1&stream={stream}", headers=UPGRADE)
    sock.sendall(data)
    assert body_of(everything(sock)) == frame(b"x\n")


def test_detach_keys_of_an_exec(engine, client, box):
    with client.terminal("exec", "-it", "--detach-keys", "ctrl-x,y", box, "sh") as t:
        t.expect("/ # ")
        t.send("\x18y")
        t.wait()
    top = engine.docker("top", box).out
    assert " sh" in top
