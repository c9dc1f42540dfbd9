"""The state directory of an engine of a program's own: whose it is, and who waits for whom."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ketch.aio import private
from ketch.daemon import main
from ketch.errors import FailedPrecondition
from ketch.runtime.cgroups import monitors
from tests.support.waiting import patient

# A thread that forks while another one starts an engine: the child has the lock's descriptor, too.
FORKED = """
import fcntl, os, signal, sys, time
from ketch.aio import private
with private._only_one(sys.argv[1]):
    child = os.fork()
    if child == 0:
        time.sleep(1000)
try:
    with open(f"{sys.argv[1]}/start.lock") as f:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("free")
finally:
    os.kill(child, signal.SIGKILL)
"""


def taken(state: object) -> str:
    """What is said of a state directory that is not used."""
    with pytest.raises(FailedPrecondition) as refused, private._only_one(str(state)):
        pass
    assert "ketch.Engine(state=DIR)" in str(refused.value.hint)
    return refused.value.message


def test_it_is_made_for_its_user_alone(tmp_path):
    state = tmp_path / "a" / "b"
    with private._only_one(str(state)):
        assert {path.name: path.stat().st_mode & 0o777 for path in state.iterdir()} == {"start.lock": 0o600}
    assert state.stat().st_mode & 0o777 == 0o700


def test_everybody_may_write_to_it(tmp_path):
    """As to a directory in /tmp that somebody has made before us."""
    tmp_path.chmod(0o1777)
    assert taken(tmp_path).endswith("everybody may change what is in it")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory that is somebody else's")
def test_it_is_somebody_elses(tmp_path):
    os.chown(tmp_path, 12345, 12345)
    assert taken(tmp_path).endswith("user 12345 may change what is in it")
    assert list(tmp_path.iterdir()) == []


def test_it_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "linked").mkdir(mode=0o700)
    (tmp_path / "linked" / "start.lock").symlink_to(tmp_path / "file")
    for name, reason in (("file", "exists"), ("file/x", "directory"), ("x" * 300, "too long"), ("linked", "links")):
        assert reason in taken(tmp_path / name)


def test_a_log_that_cannot_be_written(tmp_path):
    (tmp_path / "ketchd.log").mkdir()
    with pytest.raises(FailedPrecondition, match="directory"):
        private._start(str(tmp_path))


def test_programs_have_more_patience_than_the_engine():
    """It holds its state directory for so long at its end, and the next one is not to fail for that."""
    assert private._END_S > main._ALONE_S + monitors.EMPTY_S


def test_a_child_keeps_nobody_waiting(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=patient(60),
        check=True,
    )
    assert done.stdout == "free\n"
