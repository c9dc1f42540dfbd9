"""Containers that are made ahead: while a command runs, for the one that follows it.

    begin ──► monitor, first process, namespaces, network ──► take: the bundle is told, the rest is done
                                              └── nobody takes it for a second: it is ended

What a container is made of in the first half of its start is the same for nearly all commands of builds, and depends
neither on the command nor on the files that the last one left.  At most one waits.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch import threads
from ketch.engine.build.command import files as command_files
from ketch.engine.build.command.container import AheadContainer
from ketch.engine.build.command.files import CommandPlace
from ketch.errors import KetchError
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.build.command.container import CommandContainers
    from ketch.engine.build.command.networks import CommandNetwork
    from ketch.engine.paths import ContainerPaths
    from ketch.storage.snapshots.overlay import Snapshots

log = logging.getLogger(__name__)
_IDLE_S = 1.0


class _Waiting(Struct, frozen=True, eq=False):
    """A container that nobody has taken yet: for commands in this cgroup and this network."""

    parent: str
    network: CommandNetwork
    task: asyncio.Task[AheadContainer]
    timer: asyncio.TimerHandle


class ContainersAhead:
    """The container that is made ahead, if any.  In the event loop."""

    def __init__(
        self,
        containers: CommandContainers,
        paths: ContainerPaths,
        snapshots: Snapshots,
        later: Callable[[Callable[[], None]], object],
    ) -> None:
        """``later`` runs removals of files in the background."""
        self._containers, self._paths, self._snapshots, self._later = containers, paths, snapshots, later
        self._waiting: _Waiting | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def begin(self, parent: str, network: CommandNetwork) -> None:
        """Begin to make one for a command below the cgroup ``parent`` and in this network, unless one waits."""
        if self._waiting is None:
            task = asyncio.create_task(self._made(parent, network))
            timer = asyncio.get_running_loop().call_later(_IDLE_S, self._expire)
            self._waiting = _Waiting(parent, network, task, timer)

    async def take(self, parent: str, network: CommandNetwork) -> AheadContainer | None:
        """The container that waits, which is the caller's to end; None: there is none that suits."""
        waiting = self._waiting
        if waiting is None or (waiting.parent, waiting.network.record) != (parent, network.record):
            return None
        self._waiting = None
        waiting.timer.cancel()
        try:
            found = await asyncio.shield(waiting.task)
        except asyncio.CancelledError:
            self._end(waiting.task)
            raise
        except (KetchError, OSError) as e:
            log.info("make a build's container ahead: %s", e)
            return None
        if found.monitor.connected:
            return found
        self._end(waiting.task)
        return None

    def _expire(self) -> None:
        if self._waiting is not None:
            self._end(self._waiting.task)
            self._waiting = None

    def _end(self, task: asyncio.Task[AheadContainer]) -> None:
        ending = asyncio.create_task(self._ended(task))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _ended(self, task: asyncio.Task[AheadContainer]) -> None:
        try:
            found = await task
            await found.undo.aclose()
        except (KetchError, OSError) as e:
            log.info("end a build's container that was made ahead: %s", e)
        else:
            self._remove(found.place)

    async def close(self) -> None:
        """End what waits, and wait for it."""
        if self._waiting is not None:
            self._waiting.timer.cancel()
            self._expire()
        while self._ending:
            await asyncio.wait(set(self._ending))

    async def _made(self, parent: str, network: CommandNetwork) -> AheadContainer:
        place = CommandPlace(self._paths)
        try:
            await threads.run_to_end(place.begin)
            async with AsyncUndo() as undo:
                monitor = await self._containers.begun(place.message(parent, ahead=True), network, undo)
                return AheadContainer(place, monitor, undo.pop_all())
        except BaseException:
            self._remove(place)
            raise

    def _remove(self, place: CommandPlace) -> None:
        self._later(lambda: command_files.remove_all(place.name, self._paths, self._snapshots))
