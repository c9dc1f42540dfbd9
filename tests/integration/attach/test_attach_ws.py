"""Attach over a WebSocket, with docker-py's client and aiohttp's."""

from __future__ import annotations

import asyncio
import contextlib
import shlex

import aiohttp
import docker
import pytest

from tests.support.boxes.monitor_box import own_kib
from tests.support.engines import API, Engine
from tests.support.leaks import Census
from tests.support.logs.logservers import free_port, wait_for_port
from tests.support.waiting import patient

ECHO = 'echo ready; while read line; do echo "got $line"; done; echo over >&2'


@pytest.fixture(scope="module")
def server(request):
    """A daemon that listens on loopback, too: the libraries know no WebSockets over unix sockets."""
    if request.config.getoption("--engine") != "ketch":
        pytest.skip("needs a daemon with a port of its own")
    one = Engine("ketch", suffix="w")
    before = Census.take(one.name)
    port = free_port()
    one.extra = ["-H", f"tcp://127.0.0.1:{port}"]
    try:
        one.start()
        wait_for_port(port)
        one.add_busybox()
        yield one, port
        one.remove_all()
    finally:
        one.delete()
    assert before.leaks() == []


@pytest.fixture
def ws(server):
    """(engine, its TCP address)."""
    yield server[0], f"127.0.0.1:{server[1]}"
    server[0].remove_all()


def py(address):
    return contextlib.closing(docker.DockerClient(f"tcp://{address}", version=API, timeout=patient(30)))


def read_until(connection, wanted):
    text = b""
    while wanted not in text:
        piece = connection.recv()
        assert piece, f"the connection ended after {text!r}"
        assert isinstance(piece, bytes)  # binary frames
        text += piece
    return text


def test_docker_py(ws):
    engine, address = ws
    with py(address) as client:
        box = client.containers.create("busybox", ["sh", "-c", ECHO], stdin_open=True, name="box")
        connection = box.attach_socket(ws=True, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        connection.settimeout(patient(15))
        box.start()  # attached before: nothing is lost
        assert read_until(connection, b"ready\n") == b"ready\n"
        connection.send("a\n")
        assert read_until(connection, b"got a\n") == b"got a\n"
        connection.send_binary(b"b\n" * 3)
        assert read_until(connection, b"got b\ngot b\ngot b\n")
        engine.docker("kill", "box")
        assert connection.recv() in ("", b"")  # the daemon's goodbye
        connection.close()


def test_log_and_stream(ws):
    engine, address = ws
    engine.docker("run", "-d", "-i", "--name", "box", "busybox", "sh", "-c", ECHO)
    with engine.docker.piped("attach", "box") as typist:
        typist.send("early\n")
        typist.expect("got early\n")
    with py(address) as client:
        box = client.containers.get("box")
        one = box.attach_socket(ws=True, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1, "logs": 1})
        one.settimeout(patient(15))
        assert read_until(one, b"early\n") == b"ready\ngot early\n"
        one.send("late\n")
        assert read_until(one, b"got late\n") == b"got late\n"
        one.close()
        only_logs = box.attach_socket(ws=True, params={"stdout": 1, "stderr": 1, "logs": 1})
        only_logs.settimeout(patient(15))
        assert read_until(only_logs, b"late\n") == b"ready\ngot early\ngot late\n"
        assert only_logs.recv() in ("", b"")
        only_logs.close()


def test_detach_keys_on_a_terminal(ws):
    engine, address = ws
    engine.docker("run", "-d", "-i", "-t", "--name", "box", "busybox", "sh")
    with py(address) as client:
        one = client.containers.get("box").attach_socket(
            ws=True, params={"stdin": 1, "stdout": 1, "stream": 1, "detachKeys": "ctrl-a,d"}
        )
        one.settimeout(patient(15))
        one.send("echo he''re\n")
        read_until(one, b"here\r\n")
        one.send_binary(b"\x01")
        one.send_binary(b"d")
        while one.recv() not in ("", b""):
            pass
        one.close()
    assert engine.docker("inspect", "-f", "{{.State.Running}}", "box").out == "true\n"


def test_a_client_that_goes_ends_stdin_once(ws):
    engine, address = ws
    with py(address) as client:
        box = client.api.create_container("busybox", ["cat"], stdin_open=True, name="box")
        one = client.api.attach_socket(box, ws=True, params={"stdin": 1, "stdout": 1, "stream": 1})
        client.api.start(box)
        one.settimeout(patient(15))
        one.send("x\n")
        assert read_until(one, b"x\n") == b"x\n"
        one.close()
        assert client.api.wait(box, timeout=patient(15))["StatusCode"] == 0
    assert engine.docker("logs", "box").out == "x\n"


async def test_a_stuck_client_stalls_nobody(ws):
    """It is given 50 MB and reads nothing: the container ends its work, ketchd stays small; then it gets everything."""
    engine, address = ws
    size = 50 << 20
    await asyncio.to_thread(
        engine.docker,
        *shlex.split("run -d -i --name box --log-opt max-size=100m busybox sh -c"),
        f"read x; head -c {size} /dev/zero; echo printed >&2; read x",
    )
    url = f"ws://{address}/v1.51/containers/box/attach/ws"
    async with aiohttp.ClientSession() as session:
        stuck = await session.ws_connect(f"{url}?stream=1&stdout=1", max_msg_size=0)
        typist = await session.ws_connect(f"{url}?stream=1&stdin=1&stderr=1")
        before = own_kib(engine.process.pid)
        await typist.send_str("go\n")
        assert (await typist.receive(15)).data == b"printed\n"
        assert own_kib(engine.process.pid) < before + 6144
        await typist.send_str("end\n")
        got = 0
        async for message in stuck:
            got += len(message.data)
        assert got == size
        await typist.close()


async def test_allowed_origins(ws):
    engine, address = ws
    await asyncio.to_thread(engine.docker, "create", "--name", "box", "busybox")
    url = f"http://{address}/v1.51/containers/box/attach/ws?stream=1"
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as plain:
            assert plain.status == 400
            assert "not a WebSocket request" in (await plain.json())["message"]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(url, headers={"Origin": "http://evil.example"})
        assert refused.value.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError) as missing:
            await session.ws_connect(url.replace("/box/", "/nobody/"))
        assert missing.value.status == 404
        own = await session.ws_connect(url, headers={"Origin": f"http://{address}"})
        await own.close()
