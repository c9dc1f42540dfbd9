"""Containers and execs that a client starts, serves and waits for by one request: their life is its connection.

request ──► created, started ──► the monitor has the client's socket: output, then one frame with the ending
                            └──► a copy of it stays here: the client goes → what it has started is killed
                                 and is closed when the container is gone, which is how the client learns of that
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from ketch.engine.aio.streams import AttachOptions, ClientStream
from ketch.engine.live import waiting
from ketch.engine.oneshot.departures import Departures
from ketch.errors import PROGRAM_EXIT_CODES, Conflict, KetchError, NotFound, Unavailable
from ketch.notation import stream_frames
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.containers.service import ContainerService
    from ketch.engine.execs.service import ExecService
    from ketch.engine.model.execs import Exec
    from ketch.engine.model.records import Container
    from ketch.engine.model.requests import NewContainer
    from ketch.engine.oneshot.ahead import ContainerAhead

    Describe = Callable[[KetchError], dict[str, str]]

log = logging.getLogger(__name__)
_NOT_STARTED = 125  # as `docker run`, when it was not the program that could not be executed


class OneShots(Struct, frozen=True, eq=False):
    """Containers and execs of clients that are there for as long as these."""

    containers: ContainerService
    execs: ExecService
    tasks: BackgroundTasks
    ahead: ContainerAhead
    departures: Departures = field(default_factory=Departures)

    async def close(self) -> None:
        """Give up what was made ahead."""
        await self.ahead.close()

    async def create(self, wanted: NewContainer, check: Callable[[], None]) -> tuple[Container, list[str]]:
        """A container for `run` or `start`, perhaps one that was made ahead; ``check`` may refuse that (KetchError)."""
        kind, program = self.ahead.kind(wanted), wanted.config.cmd
        container = await self.ahead.taken(kind, wanted, check)
        made = (container, []) if container is not None else await self.containers.create(wanted)
        self.ahead.expect(kind, program)
        return made

    async def start(self, container: Container, check: Callable[[], None]) -> None:
        """Start a container that is not its client's connection, or remove it; ``check`` may refuse it at the end."""
        async with AsyncUndo() as undo:
            undo.push_async_callback(self._remove, container)
            await self.containers.life.start(container)
            check()
            undo.pop_all()
        self.ahead.make()

    async def run(self, container: Container, stream: ClientStream, describe: Describe) -> None:
        """Start a container for a client, whose connection (consumed) ends when the container has.

        A failure is the client's last frame, in which ``describe`` says what went wrong.
        """
        live = self.containers.live.of(container.id)
        over = waiting.register(live, container, "removed" if container.host.auto_remove else "next-exit")
        options = AttachOptions(stream=True, stdin=True, stdout=True, stderr=True)
        with contextlib.ExitStack() as undo:
            own = undo.enter_context(self._watched(stream, lambda: self._abandon(container)))
            live.early.append((options, stream))
            try:
                await self.containers.life.start(container)
            except KetchError as e:
                await _report(own, e, describe)
                return
            self.tasks.watch(_close_after(over.result(), undo.pop_all()))
        self.ahead.make()

    async def exec(self, exec_: Exec, stream: ClientStream, describe: Describe) -> None:
        """Start an exec likewise."""
        end = self.execs.end_of(exec_.id)
        with contextlib.ExitStack() as undo:
            undo.callback(end.cancel)
            undo.callback(stream.close)
            own = undo.enter_context(self._watched(stream, lambda: self.execs.abandon(exec_.id)))
            try:
                await self.execs.start(exec_.id, stream=stream)
            except KetchError as e:
                await _report(own, e, describe)
                return
            if not self.departures.watches(own.fd):  # it went while there was nothing to be killed yet
                await self.execs.abandon(exec_.id)
            self.tasks.watch(_close_after(end, undo.pop_all()))

    @contextlib.contextmanager
    def _watched(
        self, stream: ClientStream, abandon: Callable[[], Coroutine[Any, Any, None]]
    ) -> Iterator[ClientStream]:
        """A copy of a client's connection, until whose end the client is watched."""
        own = ClientStream(os.dup(stream.fd))
        stream.told_ending = True
        self.departures.watch(own.fd, lambda: self.tasks.start(_logged(abandon())))
        try:
            yield own
        finally:
            self.departures.forget(own.fd)
            own.close()

    async def _remove(self, container: Container) -> None:
        """Remove a container that nobody knows, unless it is gone, or somebody else removes it."""
        with contextlib.suppress(NotFound, Conflict):
            await self.containers.remove(container.id, force=True, volumes=True)

    async def _abandon(self, container: Container) -> None:
        """End a container whose client has gone; a start that has begun comes to its end first."""
        monitor = self.containers.live.of(container.id).monitor
        if monitor is not None and monitor.exited.done():
            return
        with contextlib.suppress(NotFound, Conflict):  # it has ended by itself meanwhile
            if container.host.auto_remove:
                await self.containers.remove(container.id, force=True, volumes=True)
                return
            async with self.containers.live.of(container.id).lock:
                pass
            await self.containers.stopping.end(container)


async def _logged(work: Awaitable[object]) -> None:
    try:
        await work
    except KetchError as e:
        log.error("end what a client has left: %s", e.message)


async def _close_after(over: Awaitable[object], undo: contextlib.ExitStack) -> None:
    with undo:
        await over


async def _report(client: ClientStream, error: KetchError, describe: Describe) -> None:
    """Tell a client that has its answer's head already why nothing was started."""
    ending = {"ExitCode": PROGRAM_EXIT_CODES.get(type(error), _NOT_STARTED), "Error": describe(error)}
    with contextlib.suppress(Unavailable):  # it has gone
        await client.write(stream_frames.frame(stream_frames.ENDING, msgspec.json.encode(ending)))
