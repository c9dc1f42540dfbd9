"""Clients that stop in the middle, or never come to an end: each transfer fails in time, and says why."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager

import pytest

from ketch.buildkit import clients
from ketch.buildkit.services.credentials import SecretsService
from ketch.buildkit.session import sessions as sessions_module
from ketch.buildkit.session import transfers
from ketch.buildkit.session.sessions import Sessions
from ketch.buildkit.wire.files.packet_pb2 import Packet
from ketch.errors import InvalidArgument, Unavailable
from ketch.rpc.status import Code, RpcError
from tests.support.building.session_client import SEND_PACKETS, SessionClient, playing
from tests.support.building.sources import SourceBox, SourceWork
from tests.support.waiting import patient, slowed

FIN, REQ = Packet.PACKET_FIN, Packet.PACKET_REQ
LAST = Packet()


@pytest.fixture
def sessions(tmp_path):
    return Sessions(str(tmp_path / "sockets"))


@pytest.fixture
def top(tmp_path):
    made = tmp_path / "tree"
    made.mkdir()
    (made / "large").write_bytes(os.urandom(1 << 20) * 16)  # more than windows and queues hold
    return made


def receiving(script):
    """A client that takes trees of files in its own way."""
    client = SessionClient(exports="trees")
    client.handlers[SEND_PACKETS.path] = (SEND_PACKETS, script)
    return client


async def exported(sessions, client, top):
    """Send a tree to a client."""
    fd = os.open(top, os.O_RDONLY)
    try:
        async with client.connected(sessions) as session:
            await asyncio.wait_for(session.send_directory(0, fd), patient(60))
    finally:
        os.close(fd)


async def listed(call):
    """The number of the first file of the list that is sent."""
    count, found = 0, None
    while (packet := await call.receive()).HasField("stat"):
        if found is None and not packet.stat.mode & 1 << 31:
            found = count
        count += 1
    return found


# -- directories that clients send ------------------------------------------------------------------


@asynccontextmanager
async def synced(tmp_path, script):
    """The receiving of a directory from a client with a script."""
    (tmp_path / "box").mkdir()
    box = SourceBox(tmp_path / "box")
    client = SessionClient(directories={})
    client.script = script
    async with client.connected(Sessions(str(tmp_path / "sockets"))) as session:
        yield asyncio.wait_for(box.both(box.operation("local://context"), SourceWork(session)), patient(60))
    assert not [one for one in os.listdir(tmp_path / "box/layers") if one.startswith("draft")]
    box.close()


async def ends_well(call):
    assert (await call.receive()).type == FIN
    await call.send(Packet(type=FIN))


async def test_a_client_that_has_sent_all_and_does_not_end_its_call(tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "_STALL_S", 0.1)

    async def wait(call):
        await ends_well(call)
        await asyncio.Event().wait()

    async with synced(tmp_path, playing(LAST, then=wait)) as done:
        with pytest.raises(Unavailable, match="`context`: the client has all, and has not ended it for"):
            await done


async def test_a_client_that_goes_on_sending_behind_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "_STALL_S", 0.2)

    async def babble(call):
        await ends_well(call)
        await asyncio.sleep(0.1)
        while True:
            await call.send(Packet(type=Packet.PACKET_DATA, data=b"x" * 1000))

    async with synced(tmp_path, playing(LAST, then=babble)) as done:
        with pytest.raises((Unavailable, InvalidArgument), match="has not ended it for|was not asked for"):
            await done


# -- directories that are sent to clients -----------------------------------------------------------


async def test_a_client_that_does_not_read_the_files_that_it_wanted(sessions, top, monkeypatch):
    monkeypatch.setattr(transfers, "_STALL_S", 0.3)

    async def stop(call):
        await call.send(Packet(type=REQ, ID=await listed(call)))
        await asyncio.Event().wait()

    with pytest.raises(Unavailable, match="`exported files`: the client has read nothing for"):
        await exported(sessions, receiving(stop), top)


async def test_a_client_that_asks_for_nothing(sessions, top, monkeypatch):
    monkeypatch.setattr(transfers, "_STALL_S", 0.3)

    async def stop(call):
        await listed(call)
        await asyncio.Event().wait()

    with pytest.raises(Unavailable, match="`exported files`: the client has asked for nothing for"):
        await exported(sessions, receiving(stop), top)


async def test_a_client_that_has_all_and_does_not_end_its_call(sessions, top, monkeypatch):
    monkeypatch.setattr(transfers, "_STALL_S", 0.3)

    async def stop(call):
        await listed(call)
        await call.send(Packet(type=FIN))
        assert (await call.receive()).type == FIN
        await asyncio.Event().wait()

    with pytest.raises(Unavailable, match="`exported files`: the client has all, and has not ended it for"):
        await exported(sessions, receiving(stop), top)


async def test_a_long_file_is_no_silence(sessions, top, monkeypatch):
    """While a client reads a long file it has nothing to say, for as long as that takes."""
    monkeypatch.setattr(transfers, "_STALL_S", slowed(1))
    got = []

    async def read(call):
        number = await listed(call)
        await call.send(Packet(type=REQ, ID=number))
        while (packet := await call.receive()).data:
            got.append(len(packet.data))
            await asyncio.sleep(slowed(0.02))
        await call.send(Packet(type=FIN))
        assert (await call.receive()).type == FIN

    await exported(sessions, receiving(read), top)
    assert sum(got) == 16 << 20
    assert len(got) * 0.02 > 2


async def test_a_client_that_asks_twice_for_a_file(sessions, top):
    async def ask(call):
        number = await listed(call)
        for _ in range(2):
            await call.send(Packet(type=REQ, ID=number))
        while (packet := await call.receive()) is not None:
            if packet.type == Packet.PACKET_ERR:
                return

    with pytest.raises(InvalidArgument, match="invalid file id"):
        await exported(sessions, receiving(ask), top)


async def test_an_error_of_a_client_that_does_not_read(sessions, top):
    """It is heard while a file is sent, and not only when the client has read that."""

    async def fail(call):
        await call.send(Packet(type=REQ, ID=await listed(call)))
        await asyncio.sleep(0.3)
        await call.send(Packet(type=Packet.PACKET_ERR, data=b"no space left on device"))
        await asyncio.Event().wait()

    with pytest.raises(Unavailable, match="error from receiver: no space left on device"):
        await exported(sessions, receiving(fail), top)


async def test_a_client_of_which_one_half_fails(sessions, top):
    """The other half is cancelled and says so first; the call's status names the cause."""

    async def fail(call):
        await listed(call)
        await call.send(Packet(type=Packet.PACKET_ERR, data=b"context canceled"))
        raise RpcError(Code.UNKNOWN, "write /out/big: no space left on device")

    with pytest.raises(Unavailable, match="error from receiver: write /out/big: no space left on device"):
        await exported(sessions, receiving(fail), top)


async def test_a_client_that_fails_and_goes(sessions, top):
    async def fail(call):
        await listed(call)
        await call.send(Packet(type=Packet.PACKET_ERR, data=b"no space left on device"))
        raise RpcError(Code.CANCELLED, "context canceled")

    with pytest.raises(Unavailable, match="error from receiver: no space left on device"):
        await exported(sessions, receiving(fail), top)


# -- clients that are not there any more ------------------------------------------------------------


async def test_calls_are_told_that_the_client_does_not_answer(sessions, monkeypatch):
    monkeypatch.setattr(sessions_module, "_CHECKED_S", 0.01)
    monkeypatch.setattr(sessions_module, "_ANSWER_S", 0.1)
    client = SessionClient(secrets={})

    async def wait(_call):
        await asyncio.Event().wait()

    for path, (method, _) in list(client.handlers.items()):
        client.handlers[path] = (method, wait)
    assert SecretsService.GetSecret.path in client.handlers
    async with client.connected(sessions) as session:
        with pytest.raises(RpcError, match="the client has not answered for") as raised:
            await asyncio.wait_for(session.secret("a"), patient(30))
        assert raised.value.code == Code.UNAVAILABLE
        await asyncio.wait([session.channel.closed], timeout=patient(30))
        assert "has not answered" in session.channel.why


def test_hosts_that_are_gone_are_noticed():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        clients._keep_alive(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        given = [
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        ]
        assert given == [15, 15, 9, 135_000]
    with socket.socket(socket.AF_UNIX) as sock:
        clients._keep_alive(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
