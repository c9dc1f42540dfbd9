"""Listeners of a lifecycle: services above it that are told of starts and ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ketch.engine.model.records import Container

    Act = Callable[[Container, str], Awaitable[None]]  # carries out an action of ``--health-on-failure``


class HealthListener(Protocol):
    """Healthchecks as the lifecycle sees them."""

    def begin(self, container: Container, act: Act, *, fresh: bool) -> None:
        """Begin a running container's checks; ``fresh``: health unknown; ``act`` is called when unhealthy."""

    def end(self, container: Container) -> None:
        """End the checks of a container that has ended or is paused."""


class Listeners(Struct, frozen=True):
    """Called in the event loop."""

    exec_exited: Callable[[str, int], None]  # exec id, exit code
    execs_lost: Callable[[str], None]  # container id: its monitor died, how its execs ended is unknown
    health: HealthListener
