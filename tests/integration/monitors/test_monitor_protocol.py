"""The bytes between ketchd and monitors, as earlier versions sent them: containers outlive their ketchd."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from ketch.engine.monitors import run_directory
from ketch.engine.monitors.monitor_client import MonitorClient, StreamOptions
from ketch.errors import RuntimeFailure
from ketch.linux import fdpass
from tests.support.boxes.monitor_box import NOBODY, process
from tests.support.waiting import patient

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")

PROCESS = '{"args": ["sh", "-c", "cat; exit 3"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}}'


class Wire:
    """One end of a connection of which nothing but bytes is known."""

    def __init__(self, fd: int) -> None:
        self.sock = socket.socket(fileno=fd)
        self.sock.settimeout(patient(15))

    def send(self, text: str, *fds: int) -> None:
        fdpass.send(self.sock.fileno(), text.encode(), fds)

    async def receive(self) -> dict[str, Any]:
        payload = await asyncio.to_thread(self.sock.recv, 1 << 16)
        return json.loads(payload)


async def test_a_monitor_understands_an_earlier_ketchd(yard):
    one = await yard.start(["sh", "-c", "echo first; cat; exit 7"], stdin=True, stdin_once=True)
    wire = Wire(run_directory.dial(one.run_dir))
    hello = await wire.receive()
    assert hello == {
        "ev": "hello",
        "id": one.name,
        "monitor": one.monitor_pid(),
        "pid": one.created.pid,
        "started_at": one.monitor.started_at,
        "state": "running",
        "execs": {},
        "ooms": 0,
    }
    wire.send('{"op": "status", "seq": 1}')
    assert await wire.receive() == {"seq": 1, "ok": True, **{key: value for key, value in hello.items() if key != "ev"}}
    ours, theirs = socket.socketpair()
    wire.send(
        '{"op": "exec", "seq": 2, "by": 1e12, "exec_id": "e", "process": ' + PROCESS + ', "tty": false, "stdin": true, '
        '"stdout": true, "stderr": true, "detach_keys": "", "early": false, "rows": 0, "cols": 0}',
        theirs.fileno(),
    )
    theirs.close()
    answer = await wire.receive()
    assert answer == {"seq": 2, "ok": True, "pid": answer["pid"]}
    ours.sendall(b"hello")
    ours.shutdown(socket.SHUT_WR)
    assert await asyncio.to_thread(ours.recv, 100) == b"\1\0\0\0\0\0\0\5hello"
    ended = await wire.receive()
    assert ended == {"ev": "exec_exit", "exec_id": "e", "code": 3, "at": ended["at"]}
    wire.send('{"op": "kill", "seq": 3, "by": 1e12, "signal": 0, "exec_id": null}')
    assert await wire.receive() == {"seq": 3, "ok": True}
    wire.send('{"op": "resize", "seq": 4, "by": 1e12, "rows": 10, "cols": 20, "exec_id": null}')
    assert await wire.receive() == {"seq": 4, "ok": True}
    wire.send('{"op": "kill", "seq": 5, "by": 0, "signal": 9}')
    late = await wire.receive()
    assert (late["seq"], late["ok"], late["error"]["ev"], late["error"]["kind"]) == (5, False, "failed", "setup")
    await _attach_and_end(wire)


async def _attach_and_end(wire: Wire) -> None:
    ours, theirs = socket.socketpair()
    early = os.memfd_create("early")
    os.write(early, b"early")
    wire.send(
        '{"op": "attach", "seq": 6, "by": 1e12, "stdin": true, "stdout": true, "stderr": true, "mux": true, '
        '"detach_keys": "", "early": true, "frames": false, "bell": false, "from": "start"}',
        early,
        theirs.fileno(),
    )
    os.close(early)
    theirs.close()
    assert await wire.receive() == {"seq": 6, "ok": True}
    ours.shutdown(socket.SHUT_WR)
    told = b""
    while data := await asyncio.to_thread(ours.recv, 100):
        told += data
    assert told == b"\1\0\0\0\0\0\0\6first\n\1\0\0\0\0\0\0\5early"
    ended = await wire.receive()
    assert ended == {"ev": "exit", "code": 7, "at": ended["at"], "oom": False}


async def test_ketchd_understands_an_earlier_monitor():
    """One from before monitors said their pid in "created", and how often memory ran out in "hello"."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    wire, monitor = Wire(there.detach()), MonitorClient(here.detach(), "/nonexistent")
    wire.send('{"ev": "hello", "id": "c", "monitor": 1, "pid": 2, "started_at": 3, "state": "running", "execs": {}}')
    assert await monitor.greeted(patient(15))
    assert (monitor.process, monitor.pid, monitor.started_at, monitor.ooms) == (1, 2, 3, 0)
    wire.send('{"ev": "created", "pid": 5}')
    assert (await monitor.created()).pid == 5
    wire.send('{"ev": "of a later version"}')
    asked = asyncio.ensure_future(monitor.exec("e", process(["true"]), None, NOBODY))
    request = await wire.receive()
    document = {"args": ["true"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
    assert {**request, "by": 0} == {
        "op": "exec",
        "seq": 1,
        "by": 0,
        "exec_id": "e",
        "process": document,
        "tty": False,
        "stdin": False,
        "stdout": True,
        "stderr": True,
        "detach_keys": "",
        "early": False,
        "rows": 0,
        "cols": 0,
    }
    wire.send(
        '{"seq": 1, "ok": false, "error": {"ev": "failed", "step": "exec", "errno": 2, "kind": "not_found", '
        '"message": "no such thing"}}'
    )
    with pytest.raises(RuntimeFailure, match="no such thing"):
        await asked
    attached = asyncio.ensure_future(monitor.attach(0, StreamOptions(stdout=True, start={"inode": 1, "offset": 2})))
    assert {**await wire.receive(), "by": 0} == {
        "op": "attach",
        "seq": 2,
        "by": 0,
        "stdin": False,
        "stdout": True,
        "stderr": False,
        "mux": False,
        "detach_keys": "",
        "early": False,
        "frames": False,
        "bell": False,
        "from": {"inode": 1, "offset": 2},
    }
    wire.send('{"seq": 2, "ok": true}')
    await attached
    wire.send('{"ev": "exit", "code": 4, "at": 5, "oom": false}')
    assert (await monitor.exited).code == 4
    monitor.disconnect()


def test_types_of_messages_cost_nothing():
    """They are in no process: neither in the launcher, and so in every monitor, nor in ketchd."""
    program = "import sys, ketch.runtime.process.launcher, ketch.engine.monitors.launcher; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "ketch.runtime.process.monitor" in done.stdout.split()
    assert "ketch.runtime.protocol" not in done.stdout.split()
