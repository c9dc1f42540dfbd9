"""Attach, exec and terminals straight at the monitor: many clients, slow clients, lost clients, a lost parent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ketch import pidfd
from ketch.engine.aio.streams import LogOptions
from ketch.engine.logs.framed_reader import Formatter, read_logs
from ketch.engine.monitors.run_directory import read_exit
from ketch.errors import RuntimeFailure, Unavailable
from ketch.runtime.process import messages
from tests.support.boxes.monitor_box import NOBODY, Peer, connect, own_kib, process
from tests.support.waiting import patient

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")
ECHO = ["sh", "-c", 'echo ready; while read line; do echo "got $line"; done; echo over']


async def test_clients_before_the_start_see_everything(yard):
    one = await yard.create(["sh", "-c", "echo first; echo second >&2"])
    raw = await Peer().attach(one.monitor)
    mux = await Peer().attach(one.monitor, output="mux")
    only = await Peer().attach(one.monitor, stderr=False)
    await one.monitor.start()
    assert sorted((await raw.rest()).splitlines()) == [b"first", b"second"]
    frames = await mux.rest()
    assert b"\x01\0\0\0\0\0\0\x06first\n" in frames
    assert b"\x02\0\0\0\0\0\0\x07second\n" in frames
    assert await only.rest() == b"first\n"
    assert await one.code() == 0


async def test_several_clients_type(yard):
    one = await yard.start(ECHO, stdin=True)
    peers = [await Peer().attach(one.monitor, stdin=True, start="start") for _ in range(3)]
    for number, peer in enumerate(peers):
        await peer.send(b"%d\n" % number)
        for other in peers:
            await other.until(b"got %d\n" % number)
    peers[0].half_close()  # not stdin_once: the process goes on
    await peers[1].send(b"still\n")
    for peer in peers:
        await peer.until(b"got still\n")
    await one.monitor.kill(signal.SIGKILL)
    for peer in peers:
        assert await peer.rest() == b""


async def test_half_close_reaches_the_process_once(yard):
    one = await yard.start(ECHO, stdin=True, stdin_once=True)
    peer = await Peer().attach(one.monitor, stdin=True, start="start", initial=b"early\n")
    await peer.until(b"got early\n")
    await peer.send(b"late\n")
    peer.half_close()
    assert await peer.rest() == b"got late\nover\n"
    assert await one.code() == 0


async def test_much_input_for_a_slow_reader_stays_bounded(yard):
    """A process that does not read stops its clients, it does not fill the monitor."""
    one = await yard.start(["sh", "-c", "read go; cat | wc -c"], stdin=True, stdin_once=True)
    peer = await Peer().attach(one.monitor, stdin=True)
    size = 8 << 20
    await peer.send(b"x\n" + b"y" * size)
    peer.half_close()
    assert await peer.rest() == b"%d\n" % size


async def test_input_nobody_reads_is_not_kept(yard):
    one = await yard.start(["sleep", "100"], stdin=True)
    peer = await Peer().attach(one.monitor, stdin=True)
    before = own_kib(one.monitor_pid())
    sender = asyncio.create_task(peer.send(b"y" * (32 << 20)))
    await asyncio.sleep(0)
    await one.monitor._call({"op": "status"})
    done, _ = await asyncio.wait([sender], timeout=0.5)
    assert not done
    assert own_kib(one.monitor_pid()) < before + 1024
    sender.cancel()
    peer.close()


@pytest.mark.parametrize("tcp", [False, True])
async def test_input_that_comes_too_late_costs_no_output(yard, tcp):
    """The end of the connection is an end, not a reset, whatever the client is still sending."""
    one = await yard.create(["sh", "-c", "read x; seq 20000"], stdin=True, stdin_once=True)
    pid = one.monitor_pid()
    peer = await Peer(tcp=tcp).attach(one.monitor, stdin=True)
    sender = asyncio.create_task(peer.send(b"go\n" * (1 << 20)))
    await one.monitor.start()
    assert await peer.rest() == b"".join(b"%d\n" % n for n in range(1, 20001))
    with pytest.raises((BrokenPipeError, ConnectionResetError)) if not tcp else contextlib.suppress(OSError):
        await asyncio.wait_for(sender, patient(10))
    peer.close()
    await asyncio.to_thread(_wait_for_end, pid)  # it does not stay for its client


async def test_a_terminal(yard):
    one = await yard.create(["sh"], tty=True, stdin=True)
    peer = await Peer().attach(one.monitor, stdin=True, detach_keys="~,x")
    await peer.send(b"echo typed $((1 + 1)) early\n")  # before there is a terminal
    await one.monitor.start()
    await peer.until(b"typed 2 early")
    await one.monitor.resize(33, 77)
    await peer.send(b"stty size\n")
    await peer.until(b"33 77")
    await peer.send(b"echo $((1 + 2))~")
    await peer.send(b"b\n")
    await peer.until(b"3~b")  # the first key alone was passed on
    await peer.send(b"~")
    await peer.send(b"x")
    await peer.rest()  # detached
    assert not one.monitor.exited.done()
    again = await Peer().attach(one.monitor, stdin=True)
    await again.send(b"exit 9\n")
    assert await one.code() == 9
    peer.close()
    again.close()


async def test_exec(yard):
    one = await yard.start(["sleep", "100"])
    ended = {}
    one.monitor.on_exec_exit = ended.__setitem__
    peer = Peer()
    pid = await peer.exec(one.monitor, "e1", ["sh", "-c", "cat; echo err >&2; exit 3"])
    assert (await one.monitor._call({"op": "status"}))["execs"] == {"e1": pid}
    await peer.send(b"in\n")
    peer.half_close()
    assert sorted((await peer.rest()).split(b"\0" * 6)) == [b"\x01", b"\x03in\n\x02", b"\x04err\n"]
    for _ in range(4):  # turns of the loop, in which it reads what the monitor has said by now, and calls
        await asyncio.sleep(0)
    assert ended == {"e1": 3}  # told before the connection ends
    assert not one.monitor.exited.done()


async def test_exec_with_an_impatient_program(yard):
    """What it writes in its first microseconds is not lost."""
    one = await yard.start(["sleep", "100"])
    for number in range(20):
        peer = Peer()
        await peer.exec(one.monitor, f"e{number}", ["echo", "quick"], stdin=False)
        assert await peer.rest() == b"\x01\0\0\0\0\0\0\x06quick\n"
        peer.close()


async def test_exec_does_not_wait_for_its_children(yard):
    one = await yard.start(["sleep", "100"])
    peer = Peer()
    await peer.exec(one.monitor, "e1", ["sh", "-c", "yes & echo $! >/dev/null"], stdin=False)
    assert len(await peer.rest()) < (4 << 20)
    peer.close()


async def test_exec_on_a_terminal(yard):
    one = await yard.start(["sleep", "100"])
    peer = Peer()
    await peer.exec(one.monitor, "e1", ["sh"], tty=True, rows=20, cols=50)
    await peer.send(b"stty size; tty\n")
    await peer.until(b"20 50")
    await peer.until(b"/dev/pts/")
    await one.monitor.resize(21, 51, exec_id="e1")
    await peer.send(b"stty size\n")
    await peer.until(b"21 51")
    await one.monitor.kill(signal.SIGHUP, exec_id="e1")
    await peer.rest()
    peer.close()


async def test_exec_failures(yard):
    one = await yard.start(["sleep", "100"])
    peer = Peer()
    with pytest.raises(RuntimeFailure) as caught:
        await peer.exec(one.monitor, "e1", ["no-such-program"])
    assert caught.value.kind == "program_not_found"
    with pytest.raises(RuntimeFailure, match="exec"):
        await one.monitor.resize(1, 1, exec_id="e1")
    peer.close()


async def test_execs_end_with_the_container(yard):
    one = await yard.start(["sleep", "100"])
    ended = {}
    one.monitor.on_exec_exit = ended.__setitem__
    peer = Peer()
    await peer.exec(one.monitor, "e1", ["sh", "-c", "echo up; sleep 100"], stdin=False)
    await peer.until(b"up\n")
    await one.monitor.kill(signal.SIGKILL)
    assert await one.code() == 137
    await peer.rest()
    assert ended == {"e1": 137}
    peer.close()


async def test_a_stuck_client_holds_nobody_up(yard):
    """50 MB are printed while one client reads nothing: others get them at once, memory stays, then it has all."""
    size = 50 << 20
    script = f"head -c {size} /dev/zero; echo >&2 printed; read x; echo end"
    one = await yard.create(["sh", "-c", script], stdin=True, max_size=size + (1 << 20))
    stuck = await Peer().attach(one.monitor, stderr=False)
    alert = await Peer().attach(one.monitor, stdin=True, stdout=False)
    before = own_kib(one.monitor_pid())
    await one.monitor.start()
    await alert.until(b"printed\n")
    assert own_kib(one.monitor_pid()) < before + 1536
    await alert.send(b"go\n")
    assert await one.code() == 0
    got = 0
    async for piece in pieces(stuck):
        got += len(piece)
    assert got == size + len(b"end\n")
    alert.close()
    stuck.close()


async def pieces(peer):
    while data := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer.sock, 1 << 20), patient(15)):
        yield data


async def test_without_a_log_a_stuck_client_makes_the_process_wait(yard):
    size = 20 << 20
    one = await yard.create(["sh", "-c", f"head -c {size} /dev/zero; echo >&2 done"], driver="none")
    stuck = await Peer().attach(one.monitor, stderr=False)
    before = own_kib(one.monitor_pid())
    await one.monitor.start()
    await asyncio.wait([one.monitor.exited], timeout=0.3)
    assert not one.monitor.exited.done()
    assert own_kib(one.monitor_pid()) < before + 3072
    got = sum([len(piece) async for piece in pieces(stuck)])
    assert got == size
    assert await one.code() == 0
    assert os.listdir(one.log_dir) == []
    stuck.close()


async def test_a_lagging_client_goes_on_across_rotated_files(yard):
    text = b"".join(b"%d\n" % n for n in range(1, 300001))
    one = await yard.create(["seq", "300000"], max_size=256 << 10, max_files=20)
    slow = await Peer().attach(one.monitor)
    await one.monitor.start()
    await asyncio.wait([one.monitor.exited], timeout=patient(10))
    assert await slow.rest() == text
    slow.close()


PARENT = """
import asyncio, json, os, pathlib, sys
from tests.support.boxes.monitor_box import Yard
from ketch.engine.monitors.launcher import Launcher
from ketch.engine.monitors.monitor_client import StreamOptions

async def main(place, fd):
    yard = Yard(pathlib.Path(place), await Launcher.start(sys.argv[3] + "-l"))
    yard.box.parent = sys.argv[3]
    one = await yard.start(["sh"], tty=True, stdin=True)
    await one.monitor.attach(fd, StreamOptions(stdin=True, stdout=True, stderr=True))
    print(json.dumps([one.run_dir, one.log_dir, yard.launcher._process.pid]), flush=True)
    await one.monitor.exited

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_parent_killed_while_a_terminal_is_attached(yard):
    """The shell keeps answering; who connects later gets its exit status and a log without a gap."""
    peer = Peer()
    given = peer._given.fileno()
    parent = _other_engine(yard, given)
    try:
        assert parent.stdout is not None
        run_dir, log_dir, launcher = json.loads(await asyncio.to_thread(parent.stdout.readline))
        peer._given.close()
        await peer.send(b"echo before $((40 + 1))\n")
        await peer.until(b"before 41")
        parent.kill()
        parent.wait()
        await asyncio.to_thread(_wait_for_end, launcher)
        await peer.send(b"echo after $((40 + 2))\n")
        await peer.until(b"after 42")
        monitor = await connect(run_dir)
        assert monitor is not None
        assert monitor.state == "running"
        ended = {}
        monitor.on_exec_exit = ended.__setitem__
        assert await monitor.exec("e1", process(["true"]), None, NOBODY) > 0
        await peer.send(b"echo last $((40 + 3)); exit 6\n")
        await peer.rest()
        assert (await asyncio.wait_for(monitor.exited, patient(10))).code == 6
        assert read_exit(run_dir).code == 6
        text = b"".join([chunk async for chunk in _all_of(log_dir)])
        assert [text.index(word) for word in (b"before 41", b"after 42", b"last 43")] == sorted(
            text.index(word) for word in (b"before 41", b"after 42", b"last 43")
        )
        assert ended == {"e1": 0}
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
        peer.close()


def _other_engine(yard, client_fd):
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(yard.directory), str(client_fd), yard.box.parent],
        pass_fds=[client_fd],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )


def _all_of(log_dir):
    options = LogOptions(stdout=True)
    return read_logs(log_dir, None, Formatter(options, tty=True), options)


def _wait_for_end(pid):
    with contextlib.suppress(ProcessLookupError):
        fd = pidfd.open_process(pid)
        try:
            assert select.select([fd], [], [], patient(10))[0]
        finally:
            os.close(fd)


async def test_exit_record_while_nobody_is_connected(yard):
    one = await yard.start(["sh", "-c", "read x; exit 8"], stdin=True, stdin_once=True)
    pid = one.monitor_pid()
    peer = await Peer().attach(one.monitor, stdin=True)
    await one.monitor.exec("e1", process(["sleep", "100"]), None, NOBODY)
    one.monitor.disconnect()
    await peer.send(b"\n")
    await peer.rest()
    await asyncio.to_thread(_wait_for_end, pid)
    assert read_exit(one.run_dir).code == 8
    assert json.loads(Path(one.run_dir, "exec-e1.json").read_text())["code"] == 137
    assert await connect(one.run_dir) is None
    peer.close()


async def test_a_connection_that_does_not_read_is_dialled_again(yard):
    """ketchd was stopped for a while and continues: it is connected again and loses no exit."""
    one = await yard.start(["sleep", "100"])
    first = one.monitor._fd
    with pytest.raises(OSError, match="pipe|reset"):  # answers pile up until the monitor drops the connection
        while True:
            try:
                messages.send(first, {"op": "status", "seq": 10**6})
            except BlockingIOError:
                _writable(first)  # without a chance for the event loop: this process stands still
    while True:
        try:
            await one.monitor.kill(signal.SIGKILL)
            break
        except Unavailable:  # the loss is noticed when the pile has been read
            await asyncio.sleep(0.01)
    assert await one.code() == 137


def _writable(fd):
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    assert poll.poll(10_000)
