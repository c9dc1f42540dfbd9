"""Directories that clients send over a connection: as layers, as little as possible of them, and never what is not."""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import suppress
from pathlib import Path
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.buildkit.session import packets, transfers
from ketch.buildkit.session.receiving import ReceivingEnd
from ketch.buildkit.session.sessions import Sessions
from ketch.buildkit.wire.files.packet_pb2 import Packet
from ketch.buildkit.wire.files.stat_pb2 import Stat
from ketch.errors import Conflict, InvalidArgument, KetchError, NotFound, ResourceExhausted, Unavailable
from ketch.rpc.status import Code, RpcError
from ketch.storage.archive import limits
from ketch.storage.contexts import copies
from ketch.storage.contexts.sent import SentEntry
from tests.support.building.sending import listed
from tests.support.building.session_client import SessionClient, playing, told
from tests.support.building.sources import SourceBox, SourceWork
from tests.support.waiting import patient

FILE, DIRECTORY = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


class SyncBox(SourceBox):
    """Sources whose client is at the other end of a connection."""

    def __init__(self, root):
        super().__init__(root)
        self.sessions = Sessions(str(root / "sockets"))

    async def sync(self, client, key="key-1", name="context", **attrs):
        """The layer of a client's directory, and the work that made it."""
        async with client.connected(self.sessions, key=key) as session:
            work = SourceWork(session)
            _, (tree,) = await self.both(self.operation(f"local://{name}", **attrs), work)
        return Path(self.layers.directory(tree.layers[0])), work


@pytest.fixture
def box(tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "_TICK_NS", -(10**12))  # files of tests are new, and count as old
    made = SyncBox(tmp_path)
    yield made
    assert not [one for one in os.listdir(tmp_path / "layers") if one.startswith("draft")]
    made.close()


@pytest.fixture
def top(tmp_path):
    made = tmp_path / "client"
    (made / "d/e").mkdir(parents=True)
    (made / "d/large").write_bytes(os.urandom(5_000_000))
    (made / "a").write_text("a")
    (made / "empty").touch()
    (made / "new\nline\udcff").write_text("name")
    os.link(made / "a", made / "second")
    os.symlink("/etc/passwd", made / "link")
    os.chmod(made / "a", 0o6755)
    for number in range(1500):
        (made / f"d/e/{number}").write_text(str(number))
    return made


def everything(top):
    return [(one, (top / one.path).read_bytes() if stat.S_ISREG(one.mode) else b"") for one in listed(top)]


async def test_what_has_not_changed_is_not_sent_again(box, top):
    client = SessionClient(directories={"context": top})
    first, work = await box.sync(client)
    assert everything(first) == everything(top)
    assert len(client.requested) == 1504
    assert work.statuses[-1][0] == "transferring context:"
    assert work.statuses[-1][1] > 5_000_000
    client.requested.clear()
    client.sent = 0
    assert (await box.sync(client))[0] == first
    assert (client.requested, client.sent) == ([], 0)
    (top / "d/e/77").write_text("changed")
    second, _ = await box.sync(client)
    assert (client.requested, client.sent) == (["d/e/77"], len("changed"))
    assert everything(second) == everything(top)
    assert (first / "d/e/77").read_text() == "77"
    assert os.stat(first / "d/large").st_ino == os.stat(second / "d/large").st_ino


async def test_a_copy_that_nobody_else_needs_is_changed(box, top):
    box.layers.resumes = True
    client = SessionClient(directories={"context": top})
    first, _ = await box.sync(client)
    inode = os.stat(first / "d/large").st_ino
    client.requested.clear()
    (top / "d/e/77").write_text("changed")
    (top / "d/e/78").unlink()
    second, _ = await box.sync(client)
    assert (client.requested, second != first) == (["d/e/77"], True)
    assert not first.exists()
    assert everything(second) == everything(top)
    assert os.stat(second / "d/large").st_ino == inode
    assert await box.sync(client) == (second, ANY)


async def test_a_copy_whose_list_is_lost_is_none(box, top, tmp_path):
    """A directory that is empty by now has not become the old copy's."""
    client = SessionClient(directories={"context": top})
    first, _ = await box.sync(client)
    assert os.listdir(first)
    [kept] = [path for path in tmp_path.rglob("*") if path.is_file() and first.name.encode() in path.read_bytes()]
    kept.write_bytes(kept.read_bytes().partition(b"\n")[0] + b"\n\xc1")
    empty = tmp_path / "nothing"
    empty.mkdir()
    second, _ = await box.sync(SessionClient(directories={"context": empty}))
    assert os.listdir(second) == []


async def test_a_copy_that_others_need_stays(box, top):
    box.layers.resumes = True
    client = SessionClient(directories={"context": top})
    first, _ = await box.sync(client)
    (top / "a").write_text("of other parts")
    second, _ = await box.sync(client, local_excludepatterns='["x"]')
    assert first.exists()
    box.layers.leased = {second.name}
    (top / "a").write_text("held, as the result of another step")
    third, _ = await box.sync(client, local_excludepatterns='["x"]')
    assert second.exists()
    assert everything(third) == everything(top)


async def test_a_copy_that_two_use_at_once_stays(box, top):
    box.layers.resumes = True
    first, _ = await box.sync(SessionClient(directories={"context": top}))
    (top / "a").write_text("changed")
    here = asyncio.Barrier(2)

    class Meeting(SessionClient):
        async def sync(self, call, top):
            await here.wait()
            await super().sync(call, top)

    async def synced(name):
        async with Meeting(directories={"context": top}).connected(box.sessions, name) as session:
            _, (tree,) = await box.both(box.operation("local://context"), SourceWork(session))
        return Path(box.layers.directory(tree.layers[0]))

    for made in await asyncio.gather(synced("one"), synced("two")):
        assert everything(made) == everything(top)
    assert first.exists()


async def test_directories_are_told_apart_by_their_clients_keys_and_names(box, top):
    client = SessionClient(directories={"context": top, "other": top})
    await box.sync(client)
    for arguments in ({"key": "key-2"}, {"name": "other"}, {"local_sharedkeyhint": "hint"}, {"key": ""}, {"key": ""}):
        client.sent = 0
        await box.sync(client, **arguments)
        assert client.sent > 5_000_000, arguments
    client.sent = 0
    await box.sync(client, local_differ="none")
    assert client.sent > 5_000_000
    client.sent = 0
    await box.sync(client, local_excludepatterns='["*.pyc"]')  # another part of the same directory
    assert client.sent == 0


async def test_patterns_are_the_clients_work(box, top):
    client = SessionClient(directories={"context": top})
    patterns = {"include": '["a", "d/\u00e4"]', "exclude": '["**/*.o", "!x.o"]', "follow": '["d/large"]'}
    await box.sync(
        client,
        local_includepattern=patterns["include"],
        local_excludepatterns=patterns["exclude"],
        local_followpaths=patterns["follow"],
    )
    (metadata,) = client.asked
    assert metadata["dir-name"] == ["context"]
    assert metadata["include-patterns"] == ["a", "d%2F%C3%A4"]
    assert metadata["include-patterns-encoded"] == ["1"]
    assert metadata["exclude-patterns"] == ["**/*.o", "!x.o"]
    assert metadata["followpaths"] == ["d/large"]
    assert "exclude-patterns-encoded" not in metadata


async def test_clients_without_the_directory(box, top):
    with pytest.raises(NotFound, match='no access allowed to dir "other"'):
        await box.sync(SessionClient(directories={"context": top}), name="other")
    with pytest.raises(NotFound, match="no local sources enabled"):
        await box.sync(SessionClient())


async def test_another_client_of_the_build_has_it(box, top):
    empty, client = SessionClient(directories={"other": top}), SessionClient(directories={"context": top})
    async with empty.connected(box.sessions, "a") as first, client.connected(box.sessions, "b") as second:
        work = SourceWork(first, second)
        _, (tree,) = await box.both(box.operation("local://context"), work)
    assert everything(Path(box.layers.directory(tree.layers[0]))) == everything(top)


def data(number, piece=b""):
    return Packet(type=Packet.PACKET_DATA, ID=number, data=piece)


LAST, FIN = Packet(), Packet(type=Packet.PACKET_FIN)
A_FILE = told(SentEntry("file", FILE, 3))


@pytest.mark.parametrize(
    ("messages", "error", "message"),
    [
        ([told(SentEntry("../x", FILE))], InvalidArgument, "no path below it"),
        ([told(SentEntry("b", FILE)), told(SentEntry("a", FILE))], InvalidArgument, "out of order"),
        ([told(SentEntry("b", FILE)), told(SentEntry("b", FILE))], InvalidArgument, "out of order"),
        ([told(SentEntry("a", FILE, link="/etc/passwd"))], InvalidArgument, "no file before it"),
        ([Packet(stat=Stat(path=b"s", mode=1 << 24))], InvalidArgument, "of no kind of file"),
        ([Packet(stat=Stat(path=b"s", mode=1 << 19))], InvalidArgument, "of no kind of file"),
        ([Packet(stat=Stat(path=b"s", mode=1 << 26, devmajor=-1))], InvalidArgument, "cannot have the number -1:0"),
        ([Packet(stat=Stat(path=b"s", mode=3 << 26))], InvalidArgument, "of no kind of file"),
        ([data(0, b"x")], InvalidArgument, "not asked for: number 0"),
        ([A_FILE, data(1, b"x")], InvalidArgument, "not asked for: number 1"),
        ([A_FILE, LAST, LAST], InvalidArgument, "after the end of its list"),
        ([A_FILE, LAST, told(SentEntry("z", FILE))], InvalidArgument, "after the end of its list"),
        ([A_FILE, LAST, FIN], InvalidArgument, "ends before all files"),
        ([FIN], InvalidArgument, "ends before all files"),
        ([Packet(type=Packet.PACKET_REQ, ID=0)], InvalidArgument, "type 1, which is none of a sender"),
        ([Packet(type=77)], InvalidArgument, "type 77, which is none of a sender"),
        ([Packet(type=Packet.PACKET_ERR, data=b"open x: permission denied")], Unavailable, "error from sender: open x"),
    ],
)
async def test_clients_that_do_not_send_as_they_should(box, messages, error, message):
    heard = []

    async def listen(call):
        async for packet in call:
            heard.append(packet)  # noqa: PERF401 - those that came before the call was given up count

    client = SessionClient(directories={})
    client.script = playing(*messages, then=listen)
    with pytest.raises(error, match=message):
        await asyncio.wait_for(box.sync(client), patient(30))
    assert heard[-1].type == Packet.PACKET_ERR
    assert message.partition("error from")[0] in heard[-1].data.decode()


async def requests(call, count):
    for _ in range(count):
        assert (await call.receive()).type == Packet.PACKET_REQ


async def test_data_behind_the_end_of_a_file(box):
    async def then(call):
        await requests(call, 1)
        for packet in (data(0, b"abc"), data(0), data(0, b"more")):
            await call.send(packet)

    client = SessionClient(directories={})
    client.script = playing(A_FILE, LAST, then=then)
    with pytest.raises(InvalidArgument, match="not asked for: number 0"):
        await box.sync(client)


async def test_a_file_that_cannot_be_read(box):
    """Go's senders say nothing of it: they send no bytes."""

    async def then(call):
        await requests(call, 1)
        await call.send(data(0))

    client = SessionClient(directories={})
    client.script = playing(A_FILE, LAST, then=then)
    with pytest.raises(Conflict, match="`file` in the build context: the client sends 0 of its 3 bytes"):
        await box.sync(client)


async def test_content_without_end_does_not_fill_the_disk(box, monkeypatch):
    monkeypatch.setattr(limits, "_RESERVE", 1 << 60)
    monkeypatch.setattr(limits, "_EVERY", 1 << 20)

    async def then(call):
        await requests(call, 1)
        while True:
            await call.send(data(0, b"x" * (1 << 20)))

    client = SessionClient(directories={})
    client.script = playing(A_FILE, LAST, then=then)
    with pytest.raises(ResourceExhausted, match="no space left on device"):
        await asyncio.wait_for(box.sync(client), patient(30))


async def test_all_requests_are_not_made_at_once(box):
    """A client that reads no request before it has sent all files it can is never waited for."""
    seen, enough = [], asyncio.Event()

    async def then(call):
        await requests(call, 512)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await call.receive()
        for number in range(100):
            await call.send(data(number))
            seen.append(await call.receive())
        enough.set()

    client = SessionClient(directories={})
    client.script = playing(*(told(SentEntry(f"{n:05}", FILE)) for n in range(2000)), LAST, then=then)
    task = asyncio.create_task(box.sync(client))
    await asyncio.wait_for(enough.wait(), patient(30))
    assert [packet.ID for packet in seen] == list(range(512, 612))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("place", ["list", "data", "end"])
async def test_a_client_that_vanishes(box, place):
    client = SessionClient(directories={})

    async def then(call):
        if place == "list":
            await client.connection.close()
        await requests(call, 1)
        if place == "data":
            await call.send(data(0, b"a"))
            await client.connection.close()
        await call.send(data(0, b"abc"))
        await call.send(data(0))
        assert (await call.receive()).type == Packet.PACKET_FIN
        await client.connection.close()

    client.script = playing(A_FILE, LAST, then=then)
    with pytest.raises(KetchError, match="context"):
        await asyncio.wait_for(box.sync(client), patient(30))


async def test_a_client_whose_call_ends_in_the_middle(box):
    client = SessionClient(directories={})

    async def fail(_call):
        raise RpcError(Code.UNKNOWN, "the disk is on fire")

    client.script = fail
    with pytest.raises(Unavailable, match="the client sends `context`: the disk is on fire"):
        await box.sync(client)

    async def leave(call):
        await call.send(A_FILE)

    client.script = leave
    with pytest.raises(Unavailable, match="ended it too early|has ended already"):
        await box.sync(client)


async def test_a_client_that_sends_nothing_is_given_up(box, monkeypatch):
    monkeypatch.setattr(transfers, "_STALL_S", 0.05)
    client = SessionClient(directories={})
    client.script = playing(A_FILE)
    with pytest.raises(Unavailable, match="`context`: the client has sent nothing"):
        await asyncio.wait_for(box.sync(client), patient(30))


async def test_a_cancelled_build_leaves_nothing(box):
    client, asked = SessionClient(directories={}), asyncio.Event()

    async def then(call):
        await requests(call, 1)
        await call.send(data(0, b"a"))
        asked.set()

    client.script = playing(A_FILE, then=then)
    async with client.connected(box.sessions) as session:
        task = asyncio.create_task(box.both(box.operation("local://context"), SourceWork(session)))
        await asyncio.wait_for(asked.wait(), patient(30))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class Sink:
    """A receiver that notes what it gets."""

    def __init__(self):
        self.entries, self.content, self.size = [], {}, 0

    def entry(self, one):
        self.entries.append(one)
        return stat.S_ISREG(one.mode)

    def data(self, number, piece):
        self.content[number] = self.content.get(number, b"") + piece

    def end(self, number):
        self.content.setdefault(number, b"")

    def count(self, size):
        self.size += size


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_any_bytes_are_packets_or_an_error(messages):
    with suppress(KetchError):
        ReceivingEnd(Sink()).take(messages)


@given(
    st.integers(0, 2**32 - 1),
    st.binary(max_size=200),
    st.binary(max_size=3),
)
def test_packets_of_data_are_read_without_protobuf(number, piece, rest):
    message = Packet(type=Packet.PACKET_DATA, ID=number, data=piece).SerializeToString()
    found = packets.content(message)
    assert found is not None
    assert (found[0], bytes(found[1])) == (number, piece)
    other = packets.content(message + rest)
    if other is not None:
        again = Packet.FromString(message + rest)
        assert (other[0], bytes(other[1])) == (again.ID, again.data)
    for cut in range(len(message)):
        shorter = packets.content(message[:cut])
        if shorter is not None:
            again = Packet.FromString(message[:cut])
            assert (shorter[0], bytes(shorter[1])) == (again.ID, again.data)


def test_fields_of_data_in_another_order_are_read_too():
    sink = Sink()
    end = ReceivingEnd(sink)
    assert end.take([told(SentEntry("a", FILE, 2)).SerializeToString()]) == [packets.request(0)]
    end.take([b"\x22\x02ab\x18\x00\x08\x02", b"\x18\x00\x08\x02"])
    assert sink.content == {0: b"ab"}


@pytest.mark.parametrize("mode", [0o100644, 0o104711, 0o102770, 0o041777, 0o120777, 0o010600, 0o020640, 0o060640])
def test_modes(mode):
    link = "x" if stat.S_ISLNK(mode) else ""
    device = os.makedev(8, 300) if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) else 0
    one = SentEntry("a\udcff", mode, 5, -1, 1, 2, link, device, (("user.a", b"\0"), ("user.b", b"")))
    assert packets.entry(packets.read(packets.told(one)).stat) == one


def test_attributes_have_one_order():
    one = told(SentEntry("a", FILE, attributes=(("user.b", b"1"), ("user.a", b"2"))))
    assert packets.entry(one.stat).attributes == (("user.a", b"2"), ("user.b", b"1"))
