"""Sessions of a daemon: what a program has made ends with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import ketch
from ketch.errors import NotFound
from tests.support.rawapi import Api
from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only
PROGRAM = """
import ctypes, os, sys, time, ketch
engine = ketch.connect(sys.argv[1])
box = engine.container("busybox", ["sleep", "1000"], mounts={"/v": ketch.Volume()}).start()
child = ctypes.CDLL(None).fork()  # of which Python knows nothing: it keeps all connections open
if not child:
    time.sleep(1000)
    os._exit(0)
print(box.id, child, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def program(engine):
    """A program with a container, and the container's id; a forked child outlives the program."""
    command = [sys.executable, "-c", PROGRAM, engine.host]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            box, child = process.stdout.readline().split()
            yield process, box
            os.kill(int(child), signal.SIGKILL)
        finally:
            process.kill()


def is_known(engine, box: str) -> bool:
    return Api(engine.socket)("GET", f"/containers/{box}/json")[0] == 200


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_program_that_is_killed(engine, program, number):
    """Its container and its volume go; those of others stay."""
    process, box = program
    engine.docker("run", "-d", "--name", "others", "busybox", "sleep", "1000")
    volume = engine.inspect(box)["Mounts"][0]["Name"]
    process.send_signal(number)
    until(lambda: not is_known(engine, box), "the container is removed")
    until(lambda: Api(engine.socket)("GET", f"/volumes/{volume}")[0] == 404, "the volume is removed")
    assert is_known(engine, "others")


def test_forked_children(engine):
    """A child has a session of its own: it may use its parent's container, and ends nothing of it."""
    with ketch.connect(engine.host) as python, python.container("busybox", ["sleep", "1000"]) as box:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            said = box.exec(["echo", "from the child"]).stdout
            os.write(writer, said + python.container("busybox", ["sleep", "1000"]).start().id.encode())
            os._exit(0)
        os.close(writer)
        with open(reader) as f:
            said, _, made = f.read().partition("\n")
        os.waitpid(child, 0)
        assert said == "from the child"
        until(lambda: not is_known(engine, made), "the child's container is removed")
        assert box.exec(["echo", "still"]).text == "still\n"


def test_a_session_that_is_over(python):
    """Its id makes no more containers; an engine that is used again begins another one."""
    box = python.container("busybox").start()
    before = python.access._http.headers.copy()
    python.close()
    assert python.run("busybox", ["echo", "again"]).text == "again\n"
    with pytest.raises(NotFound):
        box.exec(["true"])
    python.access._http.headers = before
    with pytest.raises(NotFound, match="No such session"):
        python.run("busybox", ["true"], pull=False)
