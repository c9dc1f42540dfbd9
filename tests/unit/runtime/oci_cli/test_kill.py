"""A signal to every process of a container, some of which are forked while it is sent."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from ketch.runtime.oci_cli import lifecycle

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


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
