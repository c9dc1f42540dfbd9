"""The end of a process with its descendants, as /proc shows them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ketch import pidfd
from ketch.engine.execs import tree
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator

# Says the pid of a descendant that is hard to end, after it has become one that adopts.
SCRIPT = """
import ctypes, os, platform, signal, sys, threading, time
CLONE, EXIT, PTRACE = {"x86_64": (56, 60, 101), "aarch64": (220, 93, 117)}[platform.machine()]
CLONE_VFORK, TRACEME, SUBREAPER = 0x4000, 0, 36
libc = ctypes.CDLL(None)
libc.prctl(SUBREAPER, 1, 0, 0, 0)
def ready():
    print(os.getpid(), flush=True)
    time.sleep(1000)
def vfork():
    if os.fork() == 0 and libc.syscall(CLONE, CLONE_VFORK | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        ready()
def traced():
    if os.fork() == 0:
        libc.syscall(PTRACE, TRACEME, 0, 0, 0)
        print(os.getpid(), flush=True)
        os.kill(os.getpid(), signal.SIGUSR1)
def headless():
    if os.fork() == 0:
        threading.Thread(target=ready).start()
        libc.syscall(EXIT, 0)
def large():
    if os.fork() == 0:
        memory = b"x" * (256 << 20)
        ready()
globals()[sys.argv[1]]()
time.sleep(1000)
"""


@pytest.fixture
def family(request) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process, and the pid of one below it."""
    with subprocess.Popen([sys.executable, "-c", SCRIPT, request.param], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            below = int(process.stdout.readline())
            fd = pidfd.open_process(below)
            yield process, fd
            os.close(fd)
        finally:
            process.kill()


@pytest.mark.parametrize("family", ["vfork", "traced", "headless"], indirect=True)
def test_processes_that_do_not_look_stopped(family, monkeypatch):
    """They are found in a few looks at /proc, and do not keep it busy until it gives up."""
    process, below = family
    looks = []
    find = tree._descendants
    monkeypatch.setattr(tree, "_descendants", lambda pid: looks.append(pid) or find(pid))
    tree.kill(process.pid, pidfd.start_time(process.pid))
    assert process.wait(patient(10)) == -9
    assert len(looks) < 10
    assert select.select([below], [], [], patient(10))[0], "the descendant has not ended"


@pytest.mark.parametrize("family", ["large"], indirect=True)
def test_an_end_that_takes_its_time(family, monkeypatch):
    """Nobody sees a process after the answer that it was killed."""
    process, below = family
    monkeypatch.setattr(tree, "_ENDS_S", patient(20))
    tree.kill(process.pid, pidfd.start_time(process.pid))
    assert select.select([below], [], [], 0)[0]


@pytest.mark.parametrize("family", ["vfork"], indirect=True)
def test_a_pid_that_is_anothers(family):
    """Also in the same namespace of pids, which may be the machine's."""
    process, _ = family
    for begun in (0, pidfd.start_time(process.pid) - 1):
        tree.kill(process.pid, begun)
    assert process.poll() is None
