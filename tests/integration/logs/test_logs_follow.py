"""Following a log through the monitor: no gap, no byte twice, whatever happens to the files or the monitor."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from ketch.engine.aio.streams import LogOptions
from ketch.engine.logs.framed_reader import Formatter, read_logs
from ketch.runtime.cgroups import common
from tests.support.boxes.monitor_box import Peer, follower
from tests.support.waiting import eventually, patient

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")


async def logged(one, monitor=None, **wanted):
    options = LogOptions(stdout=True, **wanted)
    chunks = read_logs(one.log_dir, follower(monitor), Formatter(options, tty=True), options)
    return b"".join([chunk async for chunk in chunks])


async def test_follow_has_every_byte_once(yard):
    """From wherever the reader of the files stopped, across rotation, to the end."""
    script = "seq 100000; read x; seq 100001 200000"
    one = await yard.start(["sh", "-c", script], stdin=True, max_size=100 << 10, max_files=50)
    text = b"".join(b"%d\n" % n for n in range(1, 200001))
    followers = [asyncio.create_task(logged(one, one.monitor, follow=True)) for _ in range(3)]
    peer = await Peer().attach(one.monitor, stdin=True, stdout=False)
    late = asyncio.create_task(logged(one, one.monitor, follow=True))
    await peer.send(b"\n")
    for task in (*followers, late):
        assert await asyncio.wait_for(task, patient(15)) == text
    peer.close()


async def test_follow_survives_the_monitor(yard):
    """A monitor that is killed: what it had written is still delivered, then the follower ends."""
    one = await yard.start(["sh", "-c", "echo some; sleep 100"])
    peer = await Peer().attach(one.monitor, start="start")
    await peer.until(b"some\n")
    pid = one.monitor_pid()
    follower = asyncio.create_task(logged(one, one.monitor, follow=True))
    await one.monitor._call({"op": "status"})
    os.kill(pid, signal.SIGKILL)
    assert await asyncio.wait_for(follower, patient(10)) == b"some\n"
    assert (await asyncio.wait_for(one.monitor.exited, patient(10))).lost
    os.kill(one.created.pid, signal.SIGKILL)
    peer.close()
    yard.containers.clear()
    cgroup = common.at(f"{yard.box.parent}/0")
    await eventually(lambda: not cgroup.pids(), "its processes do not end")
    cgroup.remove()


async def test_tail_and_follow(yard):
    one = await yard.start(["sh", "-c", "seq 1000; read x; echo more"], stdin=True)
    peer = await Peer().attach(one.monitor, stdin=True, start="start")
    await peer.until(b"\n1000\n")
    last = asyncio.create_task(logged(one, one.monitor, follow=True, tail=2))
    none = asyncio.create_task(logged(one, one.monitor, follow=True, tail=0))
    await asyncio.sleep(0)
    await one.monitor._call({"op": "status"})
    await peer.send(b"\n")
    assert await asyncio.wait_for(last, patient(10)) == b"999\n1000\nmore\n"
    assert await asyncio.wait_for(none, patient(10)) == b"more\n"
    peer.close()


async def test_until_ends_following(yard):
    one = await yard.start(["sh", "-c", "echo now; sleep 100"])
    peer = await Peer().attach(one.monitor, start="start")
    await peer.until(b"now\n")
    begun = time.monotonic()
    text = await asyncio.wait_for(
        logged(one, one.monitor, follow=True, until_ns=time.time_ns() + 300_000_000), patient(30)
    )
    assert text == b"now\n"
    assert time.monotonic() - begun > 0.2
    peer.close()


async def test_a_follower_that_goes_away_leaves_nothing(yard):
    one = await yard.start(["sh", "-c", "while :; do echo x; sleep 0.01; done"])
    fds = f"/proc/{one.monitor_pid()}/fd"
    before = len(os.listdir(fds))
    follower = asyncio.create_task(logged(one, one.monitor, follow=True))
    await eventually(lambda: len(os.listdir(fds)) > before, "the monitor has no follower")
    follower.cancel()
    await eventually(lambda: len(os.listdir(fds)) <= before, "the monitor keeps what the follower had")


async def test_the_second_run_continues_the_log(yard):
    """A restarted container: the same log, another monitor; old exit record gone as soon as it is set up."""
    message = yard.message(["sh", "-c", "echo run; exit 1"])
    for _ in range(2):
        monitor = await yard.launcher.start_container(message)
        (await monitor.created()).close()
        await monitor.start()
        await asyncio.wait_for(monitor.exited, patient(10))
        monitor.disconnect()
    options = LogOptions(stdout=True)
    chunks = read_logs(message["log"]["dir"], None, Formatter(options, tty=True), options)
    assert b"".join([chunk async for chunk in chunks]) == b"run\nrun\n"
