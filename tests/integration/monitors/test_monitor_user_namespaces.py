"""Launcher and monitor with containers in a user namespace: the first process is a child's child."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from ketch.errors import RuntimeFailure
from ketch.runtime import defaults
from ketch.runtime.cgroups import common
from tests.support.boxes.monitor_box import Peer, children, connect
from tests.support.boxes.runtime_box import orphaned_cgroups
from tests.support.waiting import patient

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")

_MAP = [{"containerID": 0, "hostID": 300_000, "size": 65_536}]
SETTINGS = {
    "linux.namespaces": [{"type": kind} for kind in (*defaults.NAMESPACES, "user")],
    "linux.uidMappings": _MAP,
    "linux.gidMappings": _MAP,
}


@pytest.fixture
def mapped(yard):
    yard.box.idmap = True
    return yard


async def test_a_container_runs_and_its_end_is_told(mapped):
    one = await mapped.start(["sh", "-c", "cat /proc/self/uid_map; read x; exit $x"], SETTINGS, stdin=True)
    peer = await Peer().attach(one.monitor, start="start", stdin=True)
    assert (await peer.until(b"\n")).split() == [b"0", b"300000", b"65536"]
    pid = one.created.pid
    assert Path(f"/proc/{pid}/status").read_text().split("Uid:\t")[1].split()[0] == "300000"
    assert list(children(one.monitor_pid())) == [pid]  # the passing process is gone, and reaped
    await peer.send(b"7\n")
    assert await one.code() == 7
    assert orphaned_cgroups(f"{mapped.box.parent}/0") == []
    peer.close()


async def test_an_execd_process_joins_all_namespaces(mapped):
    one = await mapped.start(["sleep", "100"], SETTINGS)
    kinds = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
    peer = Peer()
    script = "for k in $0; do readlink /proc/self/ns/$k; done; id"
    await peer.exec(one.monitor, "e1", ["sh", "-c", script, " ".join(kinds)], output="raw")
    *inside, identity = (await peer.rest()).decode().splitlines()
    assert inside == [os.readlink(f"/proc/{one.created.pid}/ns/{kind}") for kind in kinds]
    assert not set(inside) & {os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}
    assert identity.startswith("uid=0(root) gid=0(root)")
    other = Peer()
    await other.exec(one.monitor, "e2", ["sh", "-c", "id -u > /dev/stderr; echo $$"], output="raw")
    number, pid = (await other.rest()).split()
    assert number == b"0"
    assert int(pid) > 1
    await one.monitor.kill(signal.SIGKILL)
    assert await one.code() == 137


async def test_an_execd_terminal(mapped):
    one = await mapped.start(["sleep", "100"], SETTINGS)
    peer = Peer()
    await peer.exec(one.monitor, "e1", ["sh", "-c", "tty; id -u"], tty=True)
    assert (await peer.rest()).split() == [b"/dev/pts/0", b"0"]


@pytest.mark.parametrize(
    ("args", "changes", "message"),
    [
        (["no-such-program"], {}, "no-such-program"),
        (["true"], {"linux.uidMappings": []}, "linux.uidMappings is not given"),
        (["true"], {"process.user": {"uid": 70000}}, "no mapping for it"),
        (["true"], {"+mounts": [{"destination": "/x", "type": "bind", "source": "/no/file"}]}, 'at "/x": no such'),
    ],
)
async def test_what_fails_before_and_after_the_crossing(mapped, args, changes, message):
    with pytest.raises(RuntimeFailure, match=message):
        await mapped.start(args, {**SETTINGS, **changes})
    assert orphaned_cgroups(f"{mapped.box.parent}/0") == []


async def test_a_container_that_was_never_started_goes_with_its_ketchd(mapped):
    one = await mapped.create(["sleep", "100"], SETTINGS)
    pidfd = os.pidfd_open(one.created.pid)
    ended = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(pidfd, ended.set_result, None)
    one.monitor.disconnect()
    try:
        await asyncio.wait_for(ended, patient(10))
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
    mapped.containers.remove(one)


async def test_the_first_process_dies_with_its_monitor(mapped):
    one = await mapped.start(["sleep", "100"], SETTINGS)
    pidfd = os.pidfd_open(one.created.pid)
    ended = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(pidfd, ended.set_result, None)
    os.kill(one.monitor_pid(), signal.SIGKILL)
    try:
        await asyncio.wait_for(ended, patient(10))
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
    assert await connect(one.run_dir) is None
    common.at(f"{mapped.box.parent}/0").remove()
    mapped.containers.remove(one)
