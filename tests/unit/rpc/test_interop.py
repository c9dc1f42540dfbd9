"""Calls from and to gRPC's own library."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import sys
from contextlib import asynccontextmanager

import pytest
from google.protobuf.any_pb2 import Any

from ketch.api.acceptor import Acceptor
from ketch.rpc import bytestream, limits
from ketch.rpc.client import Channel
from ketch.rpc.metadata import decode_binary, encode_binary
from ketch.rpc.method import Method
from ketch.rpc.server import serve, unary
from ketch.rpc.status import Code, RpcError
from ketch.rpc.wire.status_pb2 import Status
from tests.support.source.project import ROOT
from tests.support.waiting import patient

pytest.importorskip("grpc")
PEER = [sys.executable, "-m", "tests.support.clients.grpcio_peer"]
NAMES = ("Echo", "Fail", "Wait", "Metadata", "EchoAll", "Count", "Stuck")
METHODS = {name: Method(f"/test.Peer/{name}", bytes, bytes) for name in NAMES}


class Handlers:
    """What the peer's server does, too."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    def table(self):
        return {method.path: (method, getattr(self, name.lower())) for name, method in METHODS.items()}

    async def echo(self, call):
        await unary(lambda request, _metadata: asyncio.sleep(0, request))(call)

    async def fail(self, _call):
        raise RpcError(Code.FAILED_PRECONDITION, "größer\n100 %", [Any(type_url="x/y", value=b"1")])

    async def wait(self, _call):
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def metadata(self, call):
        call.begin({"first": ["1"]})
        call.trailers = {"last-bin": [encode_binary(decode_binary(call.metadata["x-raw-bin"][0]))]}
        await call.send(call.metadata["x-text"][0].encode())

    async def echoall(self, call):
        async for message in call:
            await call.send(message)

    async def count(self, call):
        await call.send(str(sum([len(message) async for message in call])).encode())

    async def stuck(self, call):
        try:
            while True:
                await call.send(bytes(1 << 16))
        finally:
            self.cancelled.set()


@asynccontextmanager
async def served(path):
    """Our server on a socket."""
    handlers = Handlers()

    async def one(sock):
        await serve(await bytestream.over_socket(sock), handlers.table())

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        acceptor = Acceptor(listener, one)
        acceptor.start()
        try:
            yield handlers
        finally:
            await acceptor.close()


async def client(path, scenario):
    """What came of a scenario of the peer's."""
    process = await asyncio.create_subprocess_exec(
        *PEER, "call", f"unix:{path}", scenario, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    out, _ = await asyncio.wait_for(process.communicate(), patient(30))
    assert process.returncode == 0
    return json.loads(out)


@pytest.mark.parametrize(
    ("scenario", "outcome"),
    [
        ("echo", [0, 1, 16384, 70_000, limits.MESSAGE]),
        ("stream", True),
        ("many", sum(range(500))),
        ("unknown", "UNIMPLEMENTED"),
        ("large", "RESOURCE_EXHAUSTED"),
        ("compressed", "UNIMPLEMENTED"),
        ("deadline", "DEADLINE_EXCEEDED"),
        ("metadata", ["a b", "1", base64.b64encode(b"\0\xff").decode()]),
        ("break_off", [1 << 16, 2]),
        ("idle", 1),
    ],
)
async def test_a_client_of_the_library(tmp_path, scenario, outcome):
    async with served(f"{tmp_path}/s") as handlers:
        assert await client(f"{tmp_path}/s", scenario) == outcome
        if scenario in ("deadline", "break_off"):
            await asyncio.wait_for(handlers.cancelled.wait(), patient(10))


async def test_a_client_of_the_library_reads_errors(tmp_path):
    async with served(f"{tmp_path}/s"):
        code, words, details = await client(f"{tmp_path}/s", "fail")
    status = Status.FromString(base64.b64decode(details))
    assert (code, words) == ("FAILED_PRECONDITION", "größer\n100 %")
    assert (status.code, status.message, status.details[0].type_url) == (9, words, "x/y")


async def test_a_client_of_the_library_cancels(tmp_path):
    async with served(f"{tmp_path}/s") as handlers:
        assert await client(f"{tmp_path}/s", "cancel")
        await asyncio.wait_for(handlers.cancelled.wait(), patient(10))


@pytest.fixture
async def channel(tmp_path):
    """Our client of the library's server."""
    path = f"{tmp_path}/s"
    process = await asyncio.create_subprocess_exec(
        *PEER, "serve", f"unix:{path}", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert await asyncio.wait_for(process.stdout.readline(), patient(30)) == b"ready\n"
    assert os.path.exists(path)
    one = Channel.over(await bytestream.connect(path))
    yield one
    await one.close()
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), patient(30)) == 0


async def test_a_server_of_the_library(channel):
    for size in (0, 1, 16384, 70_000, limits.MESSAGE):
        assert await channel.unary(METHODS["Echo"], bytes(size)) == bytes(size)

    async with channel.stream(METHODS["EchoAll"]) as call:
        for number in range(100):
            await call.send(bytes([number]) * 1000)
            assert await call.receive() == bytes([number]) * 1000
        await call.end()
        assert await call.receive() is None

    async with channel.stream(METHODS["Count"]) as call:
        await call.send_many([bytes(32 << 10)] * 2000)
        await call.end()
        assert await call.receive() == b"%d" % (2000 * 32 << 10)

    answers = await asyncio.gather(*(channel.unary(METHODS["Echo"], b"%d" % number) for number in range(300)))
    assert answers == [b"%d" % number for number in range(300)]


async def test_a_server_of_the_library_fails(channel):
    with pytest.raises(RpcError) as raised:
        await channel.unary(METHODS["Fail"], b"")
    assert (raised.value.code, raised.value.message) == (Code.FAILED_PRECONDITION, "größer\n100 %")
    with pytest.raises(RpcError) as raised:
        await channel.unary(Method("/test.Peer/Nothing", bytes, bytes), b"")
    assert raised.value.code is Code.UNIMPLEMENTED
    with pytest.raises(RpcError) as raised:
        await channel.unary(METHODS["Wait"], b"", timeout=0.2)
    assert raised.value.code is Code.DEADLINE_EXCEEDED
    with pytest.raises(RpcError) as raised:
        await channel.unary(METHODS["Echo"], bytes(limits.MESSAGE + 1))
    assert raised.value.code is Code.RESOURCE_EXHAUSTED
    assert await channel.unary(METHODS["Echo"], b"1") == b"1"


async def test_a_server_of_the_library_gets_and_gives_metadata(channel):
    asked = {"x-text": ["a b"], "x-raw-bin": [encode_binary(b"\0\xff")]}
    async with channel.stream(METHODS["Metadata"], asked) as call:
        await call.send(b"", end=True)
        assert (await call.metadata())["first"] == ["1"]
        assert await call.receive() == b"a b"
        assert await call.receive() is None
        assert decode_binary(call.trailers()["last-bin"][0]) == b"\0\xff"


async def test_a_stream_of_the_library_s_server_is_left(channel):
    async with channel.stream(METHODS["Stuck"]) as call:
        assert len(await call.receive()) == 1 << 16
    for _ in range(20):
        assert await channel.unary(METHODS["Echo"], b"1") == b"1"
