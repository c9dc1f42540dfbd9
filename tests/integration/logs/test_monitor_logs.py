"""Log drivers at the monitor: slow clients, servers that are stuck or away, memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from ketch.engine.aio.streams import LogOptions
from ketch.engine.logs.framed_reader import Formatter
from ketch.engine.logs.json_reader import read_json_logs
from tests.support.boxes.monitor_box import Peer, follower, open_fds, own_kib
from tests.support.logs.logservers import Journal

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")
_DEADLINE_S = 15


def json_log(tmp_path, **more):
    return {
        "driver": "json-file",
        "log": {"path": str(tmp_path / "x-json.log"), "compress": False, "attrs": "", **more},
    }


def logged(tmp_path):
    text = Path(tmp_path, "x-json.log").read_bytes()
    return "".join(json.loads(line)["log"] for line in text.splitlines())


def spools(one):
    return [name for name in os.listdir(one.log_dir) if name.startswith("spool")]


async def everything(peer):
    loop, parts = asyncio.get_running_loop(), []
    while data := await asyncio.wait_for(loop.sock_recv(peer.sock, 1 << 20), _DEADLINE_S):
        parts.append(data)
    return b"".join(parts)


async def until(condition):
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_stuck_client_of_a_json_file_gets_every_byte(yard, tmp_path):
    """30 MB, neither UTF-8 nor lines, while a client reads nothing: nobody waits, memory stays, all arrives."""
    size = 30 << 20
    script = f"head -c {size} /dev/zero | tr '\\0' '\\377'; echo >&2 printed; read x; echo end"
    one = await yard.create(["sh", "-c", script], stdin=True, **json_log(tmp_path))
    stuck = await Peer().attach(one.monitor, stderr=False)
    alert = await Peer().attach(one.monitor, stdin=True, stdout=False)
    before = own_kib(one.monitor_pid())
    await one.monitor.start()
    await alert.until(b"printed\n")
    assert own_kib(one.monitor_pid()) < before + 2048
    assert spools(one)
    await alert.send(b"go\n")
    assert await one.code() == 0
    got = await everything(stuck)
    assert len(got) == size + len(b"end\n")
    assert got.count(b"\xff") == size
    await until(lambda: not spools(one))
    alert.close()
    stuck.close()


async def test_the_spool_goes_when_the_client_has_caught_up(yard, tmp_path):
    script = "while read n; do seq $n; echo done >&2; done"
    one = await yard.start(["sh", "-c", script], stdin=True, **json_log(tmp_path))
    pid = one.monitor_pid()
    slow = await Peer().attach(one.monitor, stderr=False)
    alert = await Peer().attach(one.monitor, stdin=True, stdout=False)
    fds = open_fds(pid)
    for _ in range(3):
        await alert.send(b"300000\n")
        await alert.until(b"done\n")
        assert spools(one)
        await slow.until(b"\n299999\n300000\n")
        await until(lambda: not spools(one))
        assert open_fds(pid) == fds
    await alert.send(b"300000\n")
    await alert.until(b"done\n")
    slow.close()  # in the middle of it
    await until(lambda: not spools(one))
    await one.monitor.kill(signal.SIGKILL)
    await one.code()
    alert.close()


async def test_replay_of_a_json_file_joins_the_live_output(yard, tmp_path):
    """From the start of the log, over half a line that is not in the file yet, to what comes: no gap, nothing twice."""
    script = "seq 50000; printf half; read x; echo way; read x; seq 50001 60000"
    one = await yard.start(["sh", "-c", script], stdin=True, **json_log(tmp_path))
    await until(lambda: '"50000\\n"' in Path(tmp_path, "x-json.log").read_text())
    first = await Peer().attach(one.monitor, stdin=True, start="start")
    mux = await Peer().attach(one.monitor, output="mux", start="start")
    assert await first.until(b"half") == b"".join(b"%d\n" % n for n in range(1, 50001))
    await first.send(b"\n")
    late = await Peer().attach(one.monitor, start="start")
    await late.until(b"halfway\n")
    await first.send(b"\n")
    tail = b"".join(b"%d\n" % n for n in range(50001, 60001))
    assert await first.rest() == b"way\n" + tail
    assert await late.rest() == tail
    frames, text = await mux.rest(), b""
    while frames:
        length = int.from_bytes(frames[4:8], "big")
        text, frames = text + frames[8 : 8 + length], frames[8 + length :]
    assert text.decode() == logged(tmp_path)


async def test_a_reader_that_stops_costs_nothing(yard, tmp_path):
    """`logs -f` through ketchd whose client does not read: the container prints on, neither process grows."""
    one = await yard.start(
        ["sh", "-c", "read x; seq 2000000; echo >&2 printed; read x"], stdin=True, max_files=50, **json_log(tmp_path)
    )
    alert = await Peer().attach(one.monitor, stdin=True, stdout=False)
    options = LogOptions(stdout=True, follow=True)
    path = str(tmp_path / "x-json.log")
    chunks = read_json_logs(path, follower(one.monitor), Formatter(options), options)
    assert await anext(chunks) == b""  # it is open
    await alert.send(b"x\n")
    first = await anext(chunks)
    before = own_kib(one.monitor_pid()), own_kib(os.getpid())
    await alert.until(b"printed\n")
    assert own_kib(one.monitor_pid()) < before[0] + 1536
    assert own_kib(os.getpid()) < before[1] + 8192
    await alert.send(b"x\n")
    text, frames = bytearray(), first + b"".join([chunk async for chunk in chunks])
    position = 0
    while position < len(frames):
        length = int.from_bytes(frames[position + 4 : position + 8], "big")
        text += frames[position + 8 : position + 8 + length]
        position += 8 + length
    assert text == b"".join(b"%d\n" % n for n in range(1, 2000001))
    alert.close()


# -- far ends ----------------------------------------------------------------------------------------


def syslog_to(listener, **more):
    host, port = listener.getsockname()
    log = {
        "address": ["tcp", host, port],
        "facility": 3,
        "format": "rfc3164",
        "tag": "t",
        "cache": True,
        "blocking": True,
        "buffer": 1 << 20,
        **more,
    }
    return {"driver": "syslog", "log": log}


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as one:
        one.settimeout(_DEADLINE_S)
        yield one


def received(connection):
    """Everything, as text, up to the end of the connection."""
    connection.settimeout(_DEADLINE_S)
    parts = []
    while data := connection.recv(1 << 20):
        parts.append(data)
    return b"".join(parts).decode()


FLOOD = "read x; seq 500000; echo >&2 printed; read x"


async def test_a_stuck_server_never_blocks_in_non_blocking_mode(yard, listener):
    one = await yard.start(["sh", "-c", FLOOD], stdin=True, **syslog_to(listener, blocking=False, buffer=1 << 20))
    stuck, _ = listener.accept()
    peer = await Peer().attach(one.monitor, stdin=True, stdout=False)
    before = own_kib(one.monitor_pid())
    await peer.send(b"go\n")
    await peer.until(b"printed\n")
    assert own_kib(one.monitor_pid()) < before + 4096  # the buffer, and what was in it when it was full
    await peer.send(b"\n")
    assert await one.code() == 0
    text = await asyncio.to_thread(received, stuck)
    lines = text.splitlines()
    numbers = [int(line.rpartition(" ")[2]) for line in lines if line[-1].isdigit()]
    assert numbers == sorted(numbers)
    assert numbers[:1000] == list(range(1, 1001))
    assert len(numbers) < 500000  # the rest was dropped
    peer.close()
    stuck.close()


async def test_a_stuck_server_blocks_only_the_output_in_blocking_mode(yard, listener):
    """The container waits in its write; control, execs, clients and the stop do not."""
    one = await yard.start(["sh", "-c", FLOOD], stdin=True, **syslog_to(listener))
    stuck, _ = listener.accept()
    peer = await Peer().attach(one.monitor, stdin=True)
    before = own_kib(one.monitor_pid())
    await peer.send(b"go\n")
    await peer.until(b"\n1000\n")
    got = 0
    with pytest.raises(TimeoutError):  # it stands
        while True:
            got += len(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer.sock, 1 << 20), 0.7))
    assert got < 3 << 20
    assert own_kib(one.monitor_pid()) < before + 3072
    other = Peer()
    await other.exec(one.monitor, "e1", ["echo", "alive"], stdin=False)
    assert await other.rest() == b"\x01\0\0\0\0\0\0\x06alive\n"
    await one.monitor.kill(signal.SIGKILL)  # (its server never reads again: an end that waited for it would not come)
    assert await one.code() == 137
    peer.close()
    other.close()
    stuck.close()


async def test_a_slow_server_gets_everything_in_blocking_mode(yard, listener):
    one = await yard.start(["sh", "-c", "seq 600000; echo end"], **syslog_to(listener))
    slow, _ = listener.accept()
    await asyncio.wait([one.monitor.exited], timeout=0.3)
    assert not one.monitor.exited.done()
    text = await asyncio.to_thread(received, slow)
    assert [line.rpartition(": ")[2] for line in text.splitlines()] == [*map(str, range(1, 600001)), "end"]
    assert await one.code() == 0
    slow.close()


async def test_a_server_that_comes_back(yard, listener):
    """What was on its way is sent again whole; while the server is away the container goes on."""
    script = 'while read line; do echo "got $line"; done'
    one = await yard.start(["sh", "-c", script], stdin=True, stdin_once=True, **syslog_to(listener))
    peer = await Peer().attach(one.monitor, stdin=True)
    first, _ = listener.accept()
    await peer.send(b"1\n")
    await peer.until(b"got 1\n")
    assert b"got 1\n" in first.recv(1000)
    address = listener.getsockname()
    first.close()
    listener.close()
    await asyncio.sleep(0)
    await peer.send(b"2\n")
    await peer.until(b"got 2\n")
    with socket.create_server(address) as again:
        again.settimeout(_DEADLINE_S)
        again.setblocking(False)
        second = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(again))
        while not second.done():  # the monitor tries once a second, when there is output
            await peer.send(b"3\n")
            await peer.until(b"got 3\n")
            await asyncio.wait([second], timeout=0.1)
        second, _ = second.result()
        second.setblocking(True)
        peer.half_close()
        text = await asyncio.to_thread(received, second)
        second.close()
    assert text.count("got 2\n") <= 1
    assert text.count("got 3\n") >= 1
    assert await one.code() == 0


WIDE = "n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); printf '%0200d\\n' $n; done; echo end"


async def test_a_stuck_journal(yard, tmp_path):
    """The socket's queue is full: the container waits, then every line is there, in order."""
    journal = Journal(str(tmp_path / "journal"))
    log = {"socket": journal.path, "fields": {"CONTAINER_NAME": "x"}, "cache": False, "blocking": True, "buffer": 0}
    one = await yard.start(["sh", "-c", WIDE], driver="journald", log=log)
    await asyncio.wait([one.monitor.exited], timeout=0.3)
    assert not one.monitor.exited.done()
    got = await asyncio.to_thread(journal.until, b"end")
    assert [int(entry["MESSAGE"]) for entry in got[:-1]] == list(range(1, 20001))
    assert await one.code() == 0
    journal.close()


async def test_a_journal_that_is_restarted(yard, tmp_path):
    path = str(tmp_path / "journal")
    journal = Journal(path)
    log = {"socket": path, "fields": {}, "cache": False, "blocking": True, "buffer": 0}
    one = await yard.start(["sh", "-c", "while read line; do echo $line; done"], stdin=True, driver="journald", log=log)
    peer = await Peer().attach(one.monitor, stdin=True)
    await peer.send(b"1\n")
    assert (await asyncio.to_thread(journal.entry))["MESSAGE"] == b"1"
    journal.close()
    await peer.send(b"2\n")
    await peer.until(b"2\n")
    journal = Journal(path)
    journal.sock.settimeout(0.1)
    heard = {b"2"}
    while b"3" not in heard:
        await peer.send(b"3\n")
        with contextlib.suppress(TimeoutError):
            heard.add((await asyncio.to_thread(journal.entry))["MESSAGE"])
    journal.close()
    await one.monitor.kill(signal.SIGKILL)
    await one.code()
    peer.close()
