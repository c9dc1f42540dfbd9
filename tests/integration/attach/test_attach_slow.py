"""Stuck clients end to end: an attach, an exec and a `logs -f` that read nothing, for each kind of log; measured."""

from __future__ import annotations

import contextlib
import json
import socket

import pytest

from tests.support.boxes.monitor_box import open_fds, own_kib
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only  # dockerd makes everybody wait for the slowest
SIZE = 40 << 20
FLOOD = f"read x; head -c {SIZE} /dev/zero | tr '\\0' '\\377'; echo >&2 printed; read x; echo end"
LOGGED = f"read x; yes {'x' * 99} | head -c {SIZE}; echo >&2 printed; read x; echo end"
DRIVERS = {
    "default": ["--log-opt", "max-size=400m"],
    "json-file": ["--log-driver", "json-file", "--log-opt", "max-size=400m"],
}


def open_stream(engine, method, path, body=b"", *, upgrade=True):
    """A connection on which the answer's head was read and nothing else."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(patient(15))
    sock.connect(engine.socket)
    headers = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else "Connection: close\r\n"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Type: application/json\r\n"
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    assert answer.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200")), answer
    return sock


def read_all(sock):
    parts = []
    with sock:
        while data := sock.recv(1 << 20):
            parts.append(data)
    return b"".join(parts)


def payload(frames):
    position, out = 0, []
    while position < len(frames):
        length = int.from_bytes(frames[position + 4 : position + 8], "big")
        out.append(frames[position + 8 : position + 8 + length])
        position += 8 + length
    return b"".join(out)


def dechunked(data):
    out, position = [], 0
    while True:
        end = data.index(b"\r\n", position)
        size = int(data[position:end], 16)
        if not size:
            return b"".join(out)
        out.append(data[end + 2 : end + 2 + size])
        position = end + 4 + size


def monitor_of(engine, name):
    ident = engine.docker("inspect", "-f", "{{.Id}}", name).out.strip()
    with open(f"{engine.exec_root}/run/{ident}/monitor.pid", encoding="ascii") as f:
        return int(f.read())


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("how", ["attach", "logs"])
def test_a_stuck_client_stalls_nobody_and_costs_nothing(engine, driver, how):
    script = FLOOD if how == "attach" else LOGGED
    engine.docker("run", "-d", "-i", "--name", "box", *DRIVERS[driver], "busybox", "sh", "-c", script)
    if how == "attach":
        stuck = open_stream(engine, "POST", "/containers/box/attach?stream=1&stdout=1")
    else:
        stuck = open_stream(engine, "GET", "/containers/box/logs?follow=1&stdout=1", upgrade=False)
    typist = open_stream(engine, "POST", "/containers/box/attach?stream=1&stdin=1&stderr=1")
    monitor, ketchd = monitor_of(engine, "box"), engine.process.pid
    before = own_kib(monitor), own_kib(ketchd)
    typist.sendall(b"go\n")
    assert payload(typist.recv(4096)) == b"printed\n"
    assert own_kib(monitor) < before[0] + 2048
    assert own_kib(ketchd) < before[1] + 8192
    typist.sendall(b"end\n")
    assert engine.docker("wait", "box").out == "0\n"
    data = read_all(stuck)
    got = payload(data if how == "attach" else dechunked(data))
    assert len(got) == SIZE + len(b"end\n")
    assert got.endswith(b"end\n")
    typist.close()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_follower_that_leaves_a_silent_container_leaves_nothing(engine, driver):
    """Nothing is printed that would tell ketchd, and still neither process keeps anything of it."""
    engine.docker("run", "-d", "--name", "box", *DRIVERS[driver], "busybox", "sh", "-c", "echo up; sleep 1000")
    monitor = monitor_of(engine, "box")
    before = open_fds(monitor), open_fds(engine.process.pid)
    followers = [open_stream(engine, "GET", "/containers/box/logs?follow=1&stdout=1", upgrade=False) for _ in range(5)]
    for sock in followers:
        assert b"up\n" in sock.recv(4096)
    until(lambda: open_fds(monitor) == before[0] + 5, "the followers' descriptors come")
    for sock in followers:
        sock.close()
    until(lambda: open_fds(monitor) == before[0], "the monitor's descriptors go")
    until(lambda: open_fds(engine.process.pid) <= before[1], "the daemon's descriptors go")


def test_a_stuck_exec_stalls_only_itself(engine):
    """There is no log to read it again from: the command waits, as at a full pipe; everything else goes on."""
    engine.docker("run", "-d", "-i", "--name", "box", "busybox", "cat")
    body = {"AttachStdout": True, "Cmd": ["head", "-c", str(SIZE), "/dev/zero"]}
    with contextlib.closing(engine.py()) as client:
        ident = client.api.exec_create("box", body["Cmd"], stderr=False)["Id"]
    monitor, ketchd = monitor_of(engine, "box"), engine.process.pid
    before = own_kib(monitor), own_kib(ketchd)
    stuck = open_stream(engine, "POST", f"/exec/{ident}/start", json.dumps({"Detach": False}).encode())
    typist = open_stream(engine, "POST", "/containers/box/attach?stream=1&stdin=1&stdout=1")
    for number in range(20):
        typist.sendall(b"%d\n" % number)
        assert payload(typist.recv(4096)) == b"%d\n" % number
    assert engine.docker("exec", "box", "echo", "alive").out == "alive\n"
    assert own_kib(monitor) < before[0] + 3072
    assert own_kib(ketchd) < before[1] + 8192
    assert len(payload(read_all(stuck))) == SIZE
    typist.close()
