"""Programs that are killed are killed with all that they have started."""

from __future__ import annotations

import pytest

import ketch
from ketch.errors import Conflict
from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only

# Children, grandchildren, one in a session of its own, and one whose parents have ended: a daemon.
FAMILY = "sleep 1001 & (sleep 1002 & exec sleep 1003) & (setsid sh -c 'sleep 1004 & sleep 1005' &) ; sleep 1006"


def sleepers(box) -> list[str]:
    return [line for line in box.exec(["ps", "-o", "args"]).text.splitlines() if line.startswith("sleep")]


def test_a_late_program_is_ended_with_its_family(python):
    """Nothing of it is left, and nothing of others is touched."""
    with python.container("busybox", ["sleep", "2000"]) as box, box.popen(["sleep", "3000"]):
        until(lambda: len(sleepers(box)) == 2, "the other program runs")
        with pytest.raises(ketch.TimedOut):
            box.exec(FAMILY, timeout=1)
        assert sleepers(box) == ["sleep 2000", "sleep 3000"]
        with box.popen(FAMILY) as program:
            until(lambda: len(sleepers(box)) == 8, "the family is complete")
            program.kill("STOP")
            program.kill()
            assert program.wait() == 137
            with pytest.raises(Conflict, match="not running"):
                program.kill()
        assert sleepers(box) == ["sleep 2000", "sleep 3000"]


def test_a_fork_bomb(python, limits):
    with python.container("busybox", ["sleep", "2000"], pids=60, init=True) as box:
        with pytest.raises(ketch.TimedOut):
            box.exec("bomb() { bomb | bomb & }; bomb & while :; do :; done", timeout=1)
        left = ["/sbin/docker-init -- sleep 2000", "sleep 2000", "ps -o args"]
        until(lambda: box.exec(["ps", "-o", "args"]).text.splitlines()[1:] == left, "zombies are reaped, too")


def test_a_program_that_ends_leaves_its_daemons(python):
    """As on any machine: they fall to the first process."""
    with python.container("busybox", ["sleep", "2000"]) as box:
        box.exec("(setsid sleep 1000 > /dev/null 2>&1 < /dev/null &)", check=True)
        assert sleepers(box) == ["sleep 2000", "sleep 1000"]
