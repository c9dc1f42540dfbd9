"""Counts and durations since the start of the process that no record has, for `ketch.engine.metrics`."""

from __future__ import annotations

import functools
import time
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Concatenate, ParamSpec, Protocol, TypeVar

    class _Counting(Protocol):
        @property
        def counters(self) -> Counters: ...

    _S = TypeVar("_S", bound=_Counting)
    _P = ParamSpec("_P")
    _R = TypeVar("_R")
    _Method = Callable[Concatenate[_S, _P], Awaitable[_R]]

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # dockerd's
ACTIONS = ("changes", "commit", "create", "delete", "start")


class Histogram:
    """Durations in seconds, counted by the bounds that they do not exceed; the last bucket has none."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds


class Counters:
    """The counters of one engine, for the event loop's thread."""

    def __init__(self) -> None:
        self.actions = {name: Histogram() for name in ACTIONS}
        self.health_checks = 0
        self.failed_health_checks = 0


def timed(action: str) -> Callable[[_Method[_S, _P, _R]], _Method[_S, _P, _R]]:
    """Decorator of a service's coroutine whose duration is counted when it succeeds."""

    def decorate(method: _Method[_S, _P, _R]) -> _Method[_S, _P, _R]:
        @functools.wraps(method)
        async def run(self: _S, /, *args: _P.args, **options: _P.kwargs) -> _R:
            begin = time.monotonic()
            result = await method(self, *args, **options)
            self.counters.actions[action].observe(time.monotonic() - begin)
            return result

        return run

    return decorate
