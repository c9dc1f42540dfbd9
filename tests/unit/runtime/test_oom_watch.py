"""Memory that runs out in cgroups which are gone before the end of the watch: systemd removes them at once."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from ketch.runtime.cgroups import common
from ketch.runtime.cgroups.v2 import memory
from ketch.runtime.cgroups.v2.manager import CgroupV2
from ketch.runtime.oci_cli import events
from ketch.runtime.process.loop import Loop
from ketch.runtime.process.oom import OomWatch

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Counter:
    """A cgroup's counter; of one that is gone it reads 0."""

    version = 2

    def __init__(self, fd: int = -1) -> None:
        self.kills = 0
        self._fd = fd

    def watch_oom(self) -> int:
        return self._fd

    def oom_kills_around(self) -> int:
        return 0

    def oom_kills(self) -> int:
        return self.kills


@pytest.fixture
def cgroup() -> Iterator[CgroupV2]:
    """A cgroup of the unified hierarchy, whose files tell of changes; tests remove it."""
    root = common.layout().unified
    if root is None or os.geteuid() != 0:
        pytest.skip("makes a cgroup in the unified hierarchy")
    one = CgroupV2(f"{root}/kt-oom-{os.getpid()}", root)
    one.make()
    yield one
    one.remove()


@pytest.fixture
def gone(cgroup: CgroupV2) -> int:
    """A file of a cgroup that was removed; for whoever waits for changes it is ready."""
    fd = os.open(f"{cgroup.directory}/cgroup.events", os.O_RDONLY)
    cgroup.remove()
    return fd


def test_a_kill_is_not_forgotten() -> None:
    cgroup = _Counter()
    watch = OomWatch(Loop(), lambda: None)
    watch.look()  # nothing is watched yet
    watch.begin(cgroup)
    cgroup.kills = 2
    watch.look()
    cgroup.kills = 0
    watch.look()
    assert watch.kills == 2


def test_a_cgroup_that_is_gone_is_watched_no_longer(gone: int) -> None:
    """Neither the watch nor what comes after it fails: the exit record is written then."""
    loop, errors = Loop(), []
    loop.on_error = lambda: errors.append(1)
    loop.deadline, loop.on_deadline = time.monotonic(), lambda: setattr(loop, "running", False)
    watch = OomWatch(loop, lambda: errors.append(2))
    watch.begin(_Counter(gone))
    loop.run()
    assert not errors
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(gone)
    watch.end()


def test_a_handler_that_has_failed_is_removed_all_the_same() -> None:
    def fail(_events: int) -> None:
        raise ValueError

    loop = Loop()
    ready = os.eventfd(1)
    loop.deadline, loop.on_deadline = time.monotonic(), lambda: setattr(loop, "running", False)
    loop.add(ready, 1, fail)
    loop.run()
    loop.remove(ready)
    os.close(ready)


def test_events_end_with_the_cgroup(gone: int) -> None:
    watch = events._MemoryWatch(_Counter(gone))
    assert watch.ran_out() is False
    watch.close()


def test_what_is_removed_while_somebody_looks_is_gone(cgroup: CgroupV2, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the opening of a file and its reading: nothing is populated there, and nobody's memory is watched."""
    opened: list[int] = []
    real = os.open

    def open_and_remove(path: str, flags: int) -> int:
        opened.append(real(path.replace("memory.events", "cgroup.events"), flags))
        cgroup.remove()
        return opened[-1]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_and_remove)
        assert cgroup._wait("populated", 1, 9) is True
    cgroup.make()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_and_remove)
        assert memory.watch_oom(cgroup.directory) == -1
    for fd in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
