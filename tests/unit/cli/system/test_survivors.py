"""What ``ketch daemon stop`` tells of containers, whose processes are looked at."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from ketch.cli.commands.system.survivors import Survivor, running, told
from ketch.pidfd import start_time
from tests.support.waiting import patient

LIVES = (os.getpid(), start_time(os.getpid()))
GONE = (os.getpid(), LIVES[1] - 1)  # the pid is another process's by now


def test_what_goes_on_and_what_has_ended():
    """Also of a process that is not reaped yet."""
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    one, two = Survivor("one", *LIVES), Survivor("two", *LIVES)
    gone, dead = Survivor("gone", *GONE), Survivor("dead", zombie.pid, LIVES[1])
    assert told([]) == "no container ran"
    assert told([one]) == "1 container goes on"
    assert told([one, two]) == "2 containers go on"
    assert told([gone]) == "1 container ended with it"
    assert told([gone, dead]) == "2 containers ended with it"
    assert told([two, gone, one, dead]) == "2 of 4 containers ended with it, 2 containers go on: one, two"
    zombie.wait(patient(5))


@pytest.mark.parametrize("answers", [False, True])
def test_a_daemon_that_cannot_be_asked(tmp_path, monkeypatch, answers: bool):
    """Nobody listens, or it never answers."""
    monkeypatch.setattr("ketch.cli.commands.system.survivors._PATIENCE_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        if answers:
            listener.listen()
        assert running(f"unix://{tmp_path}/sock") is None
    assert told(None) == "it did not say which containers ran"
