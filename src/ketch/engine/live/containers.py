"""Live side of containers: their state that is in memory only.

A container's *record* (``model.Container``) is durable.  Its *live side* (``Live``) is a lock that orders its state
changes, the monitor's connection while it runs, clients that attached before the start, and those who wait for an exit
or a removal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from msgspec import Struct, field

from ketch.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.engine.aio.streams import AttachOptions, ClientStream
    from ketch.engine.model.records import Container
    from ketch.engine.monitors.monitor_client import MonitorClient
    from ketch.undo import AsyncUndo

_RECORDED_S = 10.0
_REACH_S = 5.0


class Pursuit(Struct, eq=False):
    """A monitor that could not be reached yet; ``over`` is set when it is reached or its container has ended."""

    why: str
    over: asyncio.Event = field(default_factory=asyncio.Event)


class PreparedStart(Struct, eq=False):
    """A container whose first process waits for its program: ``pid``, what undoes it, ``args`` unless the bundle's."""

    monitor: MonitorClient
    pid: int
    undo: AsyncUndo
    args: list[str] | None = None


class Live(Struct, eq=False):
    """The live side of one container; ``lock`` guards decisions about its state."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    removal: asyncio.Lock = field(default_factory=asyncio.Lock)  # while somebody removes it; taken before ``lock``
    freezer: asyncio.Lock = field(default_factory=asyncio.Lock)  # while it is frozen or thawed; taken after ``lock``
    monitor: MonitorClient | None = None
    prepared: PreparedStart | None = None  # of one that was made ahead
    pursuit: Pursuit | None = None  # of a monitor that could not be reached at the daemon's start
    early: list[tuple[AttachOptions, ClientStream]] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    exit_waiters: set[asyncio.Future[tuple[int, str]]] = field(default_factory=set)
    removed_waiters: set[asyncio.Future[tuple[int, str]]] = field(default_factory=set)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    restart_task: asyncio.Task[None] | None = None
    restart_over: asyncio.Event | None = None  # while it is stopped to be started again on a user's request
    removal_deferred: int = 0  # how many are at work that end it and need it afterwards: ``--rm`` has no say

    @property
    def removing(self) -> bool:
        """Whether somebody removes it, and nobody may start it."""
        return self.removal.locked()

    @contextlib.contextmanager
    def defer_removal(self) -> Iterator[None]:
        """A context in which a ``--rm`` container is not removed when it ends."""
        self.removal_deferred += 1
        try:
            yield
        finally:
            self.removal_deferred -= 1

    @contextlib.contextmanager
    def restart(self) -> Iterator[None]:
        """A context in which the container is stopped and started again; the inner ones of several are none."""
        if self.restart_over is not None:
            yield
            return
        self.restart_over = over = asyncio.Event()
        try:
            yield
        finally:
            self.restart_over = None
            over.set()

    async def reach(self, container: Container) -> MonitorClient:
        """The monitor of a running container, waited for while it is about to be taken over.

        Conflict when the container does not run, Unavailable when its monitor cannot be had.
        """
        if self.monitor is None and self.pursuit is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.pursuit.over.wait(), _REACH_S)
        if self.monitor is not None:
            return self.monitor
        if self.pursuit is not None:
            raise Unavailable(
                f"container {container.id}: {self.pursuit.why}",
                hint="the container runs on; what does without its monitor (stop, kill, rm -f, pause, top) works",
            )
        raise Conflict(f"container {container.id} is not running")

    async def recorded(self) -> None:
        """Wait until a known exit is in the record: a client that saw a stream end may ask for it at once."""
        if self.monitor is not None and self.monitor.exited.done():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.exited.wait(), _RECORDED_S)

    def close_early(self) -> None:
        """Close the streams of clients that waited for a start that failed."""
        for _, stream in self.early:
            stream.close()
        self.early.clear()

    def release_held(self) -> None:
        """Close our copies of the sockets of clients that wait for the exit."""
        while self.held:
            os.close(self.held.pop())

    def resolve(self, waiters: set[asyncio.Future[tuple[int, str]]], code: int, error: str = "") -> None:
        """Wake everybody in ``waiters`` with an exit code and forget them."""
        for future in waiters:
            if not future.done():
                future.set_result((code, error))
        waiters.clear()


class LiveContainers:
    """The live sides by container id, each made at its first use."""

    def __init__(self) -> None:
        self._by_id: dict[str, Live] = {}

    def of(self, container_id: str) -> Live:
        """The live side of a container."""
        found = self._by_id.get(container_id)
        if found is None:
            found = self._by_id[container_id] = Live()
        return found

    def forget(self, container_id: str) -> None:
        """Drop the live side of a container that was removed."""
        self._by_id.pop(container_id, None)
