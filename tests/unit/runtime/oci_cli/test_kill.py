"""Signals to containers: to processes that are forked meanwhile, and to frozen ones whose cgroup goes with them."""

from __future__ import annotations

import itertools
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ketch.runtime.oci_cli import lifecycle

if TYPE_CHECKING:
    from collections.abc import Iterator


class Forking:
    """A cgroup that has other processes at each look."""

    def __init__(self, looks: Iterator[list[int]]) -> None:
        self._looks = looks

    def pids(self) -> list[int]:
        return next(self._looks)


def signalled(looks: Iterator[list[int]], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    got: list[int] = []
    monkeypatch.setattr(lifecycle, "_send", lambda pid, _number: got.append(pid))
    cgroup: Any = Forking(looks)
    lifecycle._signal_all(cgroup, 15)
    return got


def test_children_that_are_forked_meanwhile_get_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([[1, 2], [1, 2, 3], [3, 4], [4]])
    assert signalled(looks, monkeypatch) == [1, 2, 3, 4]


def test_who_forks_for_ever_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    got = signalled(([number] for number in itertools.count(1)), monkeypatch)
    assert got == list(range(1, len(got) + 1))


class Paused:
    """A paused container, whose cgroup systemd removes when its processes have ended."""

    id = "one"
    pid = 0

    def __init__(self) -> None:
        self.thawed = 0

    def status(self) -> str:
        return "paused"

    def cgroup(self) -> Paused:
        return self

    def configuration(self) -> dict[str, Any]:
        return {"linux": {"namespaces": [{"type": "pid"}]}}

    def pids(self) -> list[int]:
        return []

    def kill(self) -> None:
        return

    def freeze(self, _frozen: bool) -> None:
        self.thawed += 1
        raise FileNotFoundError

    def open_first(self) -> int:
        return -1


@pytest.mark.parametrize("everyone", [False, True])
def test_a_paused_container_whose_cgroup_goes_with_it(everyone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_signal_first", lambda _state, _number: True)
    state: Any = Paused()
    lifecycle.kill(state, 9, everyone=everyone)
    assert state.thawed == 1


def test_a_paused_container_that_is_ended_to_be_deleted() -> None:
    process: Any = Paused()
    child = subprocess.Popen(["sleep", "100"])
    process.open_first = lambda: os.pidfd_open(child.pid)
    try:
        lifecycle._kill_and_wait(process, process)
        assert process.thawed == 1
    finally:
        child.kill()
        assert child.wait() == -9
