"""Clients that connect: who they are, what they are asked for and what is sent to them."""

from __future__ import annotations

import asyncio
import os
import socket
import stat

import pytest

from ketch.buildkit.services.credentials import SecretsService
from ketch.buildkit.services.files import FileSendService
from ketch.buildkit.session import sessions as sessions_module
from ketch.buildkit.session.metadata import encoded
from ketch.buildkit.session.sessions import Sessions
from ketch.buildkit.wire.files.packet_pb2 import Packet
from ketch.errors import AlreadyExists, InvalidArgument, NotFound
from ketch.rpc.bytestream import over_socket
from ketch.rpc.status import RpcError
from tests.support.building.sending import listed
from tests.support.building.session_client import SEND_PACKETS, SessionClient, go_mode
from tests.support.waiting import patient


@pytest.fixture
def sessions(tmp_path):
    return Sessions(str(tmp_path / "sockets"))


async def test_who_is_connected(sessions):
    client = SessionClient(secrets={}, directories={})
    async with client.connected(sessions, "one", "the key") as session:
        assert (session.id, session.name, session.shared_key) == ("one", "buildx", "the key")
        assert await sessions.get("context:one") is session
        assert sessions.find("one") is session
        assert len(sessions) == 1
        near, _far = socket.socketpair()
        with pytest.raises(AlreadyExists, match="session one already exists"):
            await sessions.serve(await over_socket(near), client.headers("one"))
    assert len(sessions) == 0
    with pytest.raises(NotFound, match="no active session for one"):
        await sessions.get("one", wait_s=0)


@pytest.mark.parametrize("id", ["", "x" * 300, "a\nb"])
async def test_ids_that_are_none(sessions, id):
    near, _far = socket.socketpair()
    with pytest.raises(InvalidArgument, match="needs an id"):
        await sessions.serve(await over_socket(near), SessionClient().headers(id))


async def test_a_client_that_comes_later_is_waited_for(sessions):
    waiting = [asyncio.create_task(sessions.get("late")) for _ in range(2)]
    given_up = asyncio.create_task(sessions.get("late"))
    await asyncio.sleep(0)
    given_up.cancel()
    async with SessionClient().connected(sessions, "late") as session:
        assert await asyncio.gather(*waiting) == [session, session]


async def test_a_client_that_vanishes_ends_what_it_was_asked(sessions):
    client = SessionClient(secrets={})

    async def vanish(_call):
        await client.connection.close()
        await asyncio.sleep(60)

    client.handlers[SecretsService.GetSecret.path] = (SecretsService.GetSecret, vanish)
    async with client.connected(sessions) as session:
        with pytest.raises(RpcError):
            await asyncio.wait_for(session.secret("a"), patient(30))


async def test_a_client_that_does_not_answer_is_given_up(sessions, monkeypatch):
    monkeypatch.setattr(sessions_module, "_CHECKED_S", 0.01)
    monkeypatch.setattr(sessions_module, "_ANSWER_S", 0.05)
    near, _far = socket.socketpair()
    serving = asyncio.create_task(sessions.serve(await over_socket(near), SessionClient().headers("silent")))
    await sessions.get("silent")
    await asyncio.wait_for(serving, patient(30))
    assert len(sessions) == 0


async def test_a_client_without_health_checks_is_there(sessions, monkeypatch):
    monkeypatch.setattr(sessions_module, "_CHECKED_S", 0.001)
    client = SessionClient(secrets={"a": b"b"})
    del client.handlers["/grpc.health.v1.Health/Check"]
    async with client.connected(sessions) as session:
        await asyncio.sleep(0.1)
        assert await session.secret("a") == b"b"


async def test_secrets(sessions):
    async with SessionClient(secrets={"token": b"\0secret", "empty": b""}).connected(sessions) as session:
        assert await session.secret("token") == b"\0secret"
        assert await session.secret("empty") == b""
        assert await session.secret("other") is None
    async with SessionClient().connected(sessions) as session:
        assert await session.secret("token") is None


async def test_credentials_are_asked_for_by_the_registrys_own_name(sessions):
    client = SessionClient(logins={"registry-1.docker.io": ("me", "hub"), "r.example:5000": ("", "token")})
    async with client.connected(sessions) as session:
        assert await session.credentials("docker.io") == ("me", "hub")
        assert await session.credentials("r.example:5000") == ("", "token")
        assert await session.credentials("r.example") is None
    assert client.asked == ["registry-1.docker.io", "r.example:5000", "r.example"]
    async with SessionClient().connected(sessions) as session:
        assert await session.credentials("docker.io") is None


async def test_agents(sessions):
    async with SessionClient(agents=["default", "git"]).connected(sessions) as session:
        assert await session.ssh_agent("other") is None
        default, git = await session.ssh_agent(""), await session.ssh_agent("git")
        assert default == await session.ssh_agent("default") != git
        assert stat.S_IMODE(os.stat(git).st_mode) == 0o600
        for path, name in ((default, b"default"), (git, b"git"), (git, b"git")):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"hello")
            assert await reader.readexactly(len(name) + 5) == name + b"hello"
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        reader, writer = await asyncio.open_unix_connection(git)  # still open at the end
        writer.write(b"x")
        await reader.read(1)
    assert not os.path.exists(default)
    assert not os.path.exists(git)
    async with SessionClient().connected(sessions) as session:
        assert await session.ssh_agent("default") is None


async def test_uploads(sessions):
    async with SessionClient(uploads={"id": [b"a", b"b" * 100_000]}).connected(sessions) as session:
        assert b"".join([piece async for piece in session.uploaded("buildkit-session", "/id")]) == b"a" + b"b" * 100_000
        with pytest.raises(RpcError, match="no http response"):
            assert [piece async for piece in session.uploaded("buildkit-session", "/id")]
    async with SessionClient().connected(sessions) as session:
        with pytest.raises(NotFound, match="keeps nothing"):
            assert [piece async for piece in session.uploaded("buildkit-session", "/id")]


async def test_archives_for_exporters(sessions):
    async def pieces():
        for number in range(200):
            yield bytes([number]) * 12_345
        yield b"x" * 7_000_000

    client = SessionClient(exports=True)
    async with client.connected(sessions) as session:
        await session.send_file(3, {"containerimage.digest": "sha256:1"}, pieces())
    whole = b"".join(bytes([number]) * 12_345 for number in range(200)) + b"x" * 7_000_000
    assert client.archives == {"3": ({"exporter-md-containerimage.digest": "sha256:1"}, whole)}
    async with SessionClient().connected(sessions) as session:
        with pytest.raises(NotFound, match="FileSend/DiffCopy not supported by the client"):
            await session.send_file(0, {}, pieces())


async def test_an_exporter_that_refuses(sessions):
    async def pieces():
        for _ in range(100):
            yield b"x" * (1 << 20)

    client = SessionClient(exports=True)

    async def refuse(call):
        await call.receive()
        raise RpcError(6, "target already exists")

    client.handlers[FileSendService.DiffCopy.path] = (FileSendService.DiffCopy, refuse)
    async with client.connected(sessions) as session:
        with pytest.raises(RpcError, match="target already exists"):
            await session.send_file(0, {}, pieces())


@pytest.mark.parametrize(("name", "mtime_ns"), [("", None), ("linux_amd64", 10**18)])
async def test_trees_for_exporters(sessions, tmp_path, name, mtime_ns):
    top = tmp_path / "tree"
    (top / "d/deep").mkdir(parents=True)
    (top / "d/large").write_bytes(os.urandom(3_000_000))
    os.link(top / "d/large", top / "second")
    os.symlink("../x", top / "d/link")
    os.mkfifo(top / "pipe")
    socket.socket(socket.AF_UNIX).bind(str(top / "socket"))
    os.chmod(top / "d", 0o3755)
    os.setxattr(top / "d/large", "user.a", b"b")
    for number in range(1000):
        (top / f"d/deep/{number}").write_text(str(number))
    client = SessionClient(exports="trees")
    fd = os.open(top, os.O_RDONLY)
    async with client.connected(sessions) as session:
        await session.send_directory(1, fd, name, mtime_ns)
    os.close(fd)
    found = client.archives["1"]
    if name:
        head = found.pop(0)[0]
        assert (head.path, head.mode, head.modTime) == (b"linux_amd64", 1 << 31 | 0o755, 10**18)
    prefix = f"{name}/" if name else ""
    os.unlink(top / "socket")
    (top / "socket").touch()
    expected = listed(top)
    assert [one.path.decode() for one, _ in found] == [prefix + one.path for one in expected]
    for (one, content), entry in zip(found, expected, strict=True):
        if entry.path == "socket":
            assert (one.mode & ~0o777, content) == (0, b"")
            continue
        link = prefix + entry.link if entry.link and stat.S_ISREG(entry.mode) else entry.link
        assert (one.mode, one.uid, one.size, one.linkname.decode()) == (go_mode(entry.mode), 0, entry.size, link)
        assert one.modTime == (mtime_ns or entry.mtime_ns)
        assert [(x.key.decode(), x.value) for x in one.xattrs] == list(entry.attributes)
        if stat.S_ISREG(entry.mode) and not entry.link:
            assert content == (top / entry.path).read_bytes()


async def test_a_receiver_that_asks_for_what_it_was_not_told(sessions, tmp_path):
    client = SessionClient(exports="trees")
    told = []

    async def ask(call):
        await call.send(Packet(type=Packet.PACKET_REQ, ID=99))
        told.extend([packet async for packet in call])

    client.handlers[SEND_PACKETS.path] = (SEND_PACKETS, ask)
    (tmp_path / "file").touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    async with client.connected(sessions) as session:
        with pytest.raises(InvalidArgument, match="invalid file id 99"):
            await asyncio.wait_for(session.send_directory(0, fd), patient(30))
    os.close(fd)
    assert told[-1].type == Packet.PACKET_ERR


def test_metadata_that_is_not_ascii_is_quoted():
    assert encoded({"a": ["x y", "**/z"], "b": []}) == {"a": ["x y", "**/z"], "b": []}
    assert encoded({"a": ["x y", "\u00e4%\udcff"]}) == {"a": ["x+y", "%C3%A4%25%FF"], "a-encoded": ["1"]}
    assert encoded({"a": ["new\nline"]}) == {"a": ["new%0Aline"], "a-encoded": ["1"]}
