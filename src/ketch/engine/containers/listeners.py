"""Listeners of a lifecycle: services above it that are told of starts and ends, given to it once by the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ketch.engine.model.records import Container


class HealthListener(Protocol):
    """Healthchecks as the lifecycle sees them."""

    def begin(self, container: Container, *, fresh: bool) -> None:
        """It runs now; ``fresh``: nothing is known of its health."""

    def resume(self, container: Container) -> None:
        """It goes on after a pause."""

    def end(self, container: Container) -> None:
        """It does not run any more, or is paused."""


@dataclass(frozen=True)
class Listeners:
    """Called in the event loop."""

    remove: Callable[[Container], Awaitable[None]]  # an ended container that goes with its end (``--rm``)
    exec_exited: Callable[[str, int], None]  # exec id, exit code
    execs_lost: Callable[[str], None]  # container id: its monitor died, how its execs ended is unknown
    health: HealthListener
