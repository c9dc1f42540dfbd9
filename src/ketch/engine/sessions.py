"""Sessions: programs on whose life containers depend.

A program begins one by a connection, which it holds.  What it makes in it is removed when the connection ends, or the
program, whichever is first: forked children inherit connections, and a program that is killed closes none itself.  The
containers of sessions that ended without a ketchd are removed at its start: no session outlives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING

from msgspec import Struct, field

from ketch import pidfd
from ketch.engine.model import names
from ketch.errors import KetchError, NotFound, Unavailable
from ketch.network.model.record import PREDEFINED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.containers.service import ContainerService
    from ketch.engine.model.records import Container
    from ketch.engine.model.requests import NewContainer
    from ketch.engine.networks.service import NetworkService
    from ketch.engine.oneshot.service import OneShots

log = logging.getLogger(__name__)
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)


class ProgramSessions(Struct, eq=False):
    """The sessions of one daemon; ``over`` is for one that lives as long as they do."""

    containers: ContainerService
    networks: NetworkService
    oneshots: OneShots
    tasks: BackgroundTasks
    _open: set[str] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _closed: bool = False

    def begin(self) -> str:
        """The id of a new session, for `hold` or `give_up` (Unavailable: the daemon is about to end)."""
        if self._closed:
            raise Unavailable("begin a session: the last one has ended, and the daemon ends with it")
        ident = names.new_id()
        self._open.add(ident)
        self._changed.set()
        return ident

    def give_up(self, ident: str) -> None:
        """End a session that nobody has had."""
        self._open.discard(ident)
        self._changed.set()

    def hold(self, ident: str, connection: socket.socket) -> None:
        """Let a session last as long as its connection (consumed) and the process behind it."""
        self.tasks.watch(self._held(ident, connection))

    async def create(self, ident: str, wanted: NewContainer, *, runs: bool = False) -> tuple[Container, list[str]]:
        """A new container that ends with a session (NotFound: that is over); ``runs``: which is started at once."""
        self.check(ident)
        wanted.session = ident
        if runs:
            container, warnings = await self.oneshots.create(wanted, lambda: self.check(ident))
        else:
            container, warnings = await self.containers.create(wanted)
        if ident not in self._open:
            await self._remove(container)
            self.check(ident)
        return container, warnings

    async def clear(self, *, everything: bool = False) -> None:
        """Remove the containers of sessions that are over; ``everything``: all others, and their networks, too."""
        left = [c for c in self.containers.list() if everything or (c.session and c.session not in self._open)]
        await asyncio.gather(*map(self._remove, left))
        for network in self.networks.list() if everything else ():
            if network.name not in PREDEFINED:
                with contextlib.suppress(KetchError):  # one with a container that could not be removed
                    await self.networks.remove(network.id)

    async def over(self, patience_s: float) -> None:
        """Wait for the end of the last session, or until nobody has begun one, and remove everything."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._changed.wait()
        while not self._closed:
            while self._open:
                self._changed.clear()
                await self._changed.wait()
            await self.clear(everything=True)
            self._closed = not self._open  # else another program has come meanwhile

    def check(self, ident: str) -> None:
        """Check that a session lasts (NotFound)."""
        if ident not in self._open:
            raise NotFound(f"No such session: {ident}", hint="begin another one: POST /ketch/session")

    async def _held(self, ident: str, connection: socket.socket) -> None:
        with connection:
            await _end_of(connection)
            self._open.discard(ident)
            await asyncio.gather(*(self._remove(c) for c in self.containers.list() if c.session == ident))
            self._changed.set()

    async def _remove(self, container: Container) -> None:
        try:
            live = self.containers.live.of(self.containers.get(container.id).id)
            async with live.removal:
                pass  # the removal that another has begun: who waits for ours waits for that one
            await self.containers.remove(container.id, force=True, volumes=True)
        except NotFound:
            pass  # somebody else has
        except (KetchError, OSError) as e:
            log.warning("remove container %s, whose session is over: %s", container.id[:12], e)


async def _end_of(connection: socket.socket) -> None:
    """Wait until the other end closes its connection, or dies."""
    ended = asyncio.Event()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_read(connection.fileno(), lambda: ended.set() if _at_end(connection) else None))
        pid = _peer(connection)
        if pid:
            try:
                fd = pidfd.open_process(pid)
            except ProcessLookupError:
                return
            stack.callback(os.close, fd)
            stack.enter_context(_read(fd, ended.set))
        await ended.wait()


@contextlib.contextmanager
def _read(fd: int, call: Callable[[], object]) -> Iterator[None]:
    """A time in which a function is called whenever a descriptor can be read."""
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, call)
    try:
        yield
    finally:
        loop.remove_reader(fd)


def _at_end(connection: socket.socket) -> bool:
    """Whether no more comes; what comes means nothing."""
    try:
        return not connection.recv(1 << 12)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _peer(connection: socket.socket) -> int:
    """The process at the other end of a unix socket; 0 for one that cannot be seen, as on another machine."""
    if connection.family != socket.AF_UNIX:
        return 0
    pid = int(_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0])
    return 0 if pid == os.getpid() else pid  # behind TLS it is we ourselves who relay
