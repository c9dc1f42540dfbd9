"""Processes in a container of a build whose streams somebody holds: input, output, a terminal, signals.

The first process is the container's own; others are added to it, and end with it.  Output waits for its reader, and
input for the process: nothing is kept here but a frame.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from typing import TYPE_CHECKING, NamedTuple

from ketch.engine.build.command import bundle
from ketch.engine.monitors.monitor_client import ExecProcess, StreamOptions
from ketch.engine.monitors.process import parent
from ketch.engine.os_errors import explained
from ketch.errors import Conflict
from ketch.notation.stream_frames import HEADER, STDOUT

if TYPE_CHECKING:
    from ketch.build.providers import BuildCommand
    from ketch.engine.apparmor.profiles import AppArmorProfiles
    from ketch.engine.model.namespaces.user import UserNamespace
    from ketch.engine.monitors.monitor_client import MonitorClient

_PIECE = 32 << 10
_LOST = 137


class TerminalSize(NamedTuple):
    """The size of a terminal, in characters."""

    rows: int
    columns: int


class _Streams:
    """The streams of one process, over a connection to its monitor."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, tty: bool) -> None:
        self._reader, self._writer, self._tty = reader, writer, tty
        self._left = (STDOUT, 0)  # of the present frame: its stream, and the bytes that are still to come

    async def write(self, data: bytes) -> None:
        """Write input; waits while the process does not read, and nothing happens when it reads no more."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            return

    def end_input(self) -> None:
        """End the input."""
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()

    async def read(self) -> tuple[int, bytes] | None:
        """A piece of output with its stream (1, 2); None at the end."""
        try:
            if self._tty:
                data = await self._reader.read(_PIECE)
                return (STDOUT, data) if data else None
            while not self._left[1]:
                self._left = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            stream, left = self._left
            data = await self._reader.read(min(left, _PIECE))
        except (OSError, asyncio.IncompleteReadError):
            return None
        self._left = (stream, left - len(data))
        return (stream, data) if data else None

    @property
    def is_closed(self) -> bool:
        """Whether the connection is closed, or is being closed."""
        return self._writer.is_closing()

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


class InteractiveProcess:
    """A process whose streams its owner holds."""

    def __init__(self, monitor: MonitorClient, streams: _Streams, exec_id: str | None, ended: asyncio.Future[int]):
        self._monitor, self._streams, self._exec_id, self._ended = monitor, streams, exec_id, ended
        self.write, self.end_input, self.read = streams.write, streams.end_input, streams.read

    async def resize(self, size: TerminalSize) -> None:
        """Set the terminal's size (KetchError)."""
        if not self._ended.done():
            await self._monitor.resize(size.rows & 0xFFFF, size.columns & 0xFFFF, self._exec_id)

    async def signal(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended (KetchError)."""
        if not self._ended.done():
            await self._monitor.kill(number, self._exec_id)

    async def ended(self) -> int:
        """Wait for its end, and return its exit code; its output may still have to be read."""
        return await asyncio.shield(self._ended)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._ended.done()

    @property
    def is_closed(self) -> bool:
        """Whether somebody has let go of its streams."""
        return self._streams.is_closed

    def close(self) -> None:
        """Let go of the streams."""
        self._streams.close()


class InteractiveContainer:
    """A running container: its first process, and those that are added to it; ``users`` is its user namespace."""

    def __init__(
        self, monitor: MonitorClient, streams: _Streams, apparmor: AppArmorProfiles, users: UserNamespace | None = None
    ) -> None:
        self._monitor, self._apparmor = monitor, apparmor
        self.users = users
        self._execs: dict[str, asyncio.Future[int]] = {}
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.process = InteractiveProcess(monitor, streams, None, ended)
        self._processes = [self.process]
        self._root_fd = -1
        monitor.on_exec_exit = self._exec_ended
        monitor.exited.add_done_callback(lambda _exited: self._all_ended(ended))

    @property
    def pid(self) -> int:
        """The container's first process, as the machine sees it."""
        return self._monitor.pid

    def hold_root(self) -> None:
        """Hold its root, now that its first process runs in it; one that has ended already has none any more."""
        try:
            root_fd = os.open(f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            return
        self._root_fd = root_fd
        # The process may have ended just now, and its number be another's, with another root.
        if parent(self.pid) != self._monitor.process:
            self._let_go_of_root()

    def borrowed_root(self) -> int:
        """A descriptor of its root, which is the caller's to close (Conflict: it has ended; other KetchErrors).

        The container may end while a thread looks at its files, and the number of the descriptor that is held here
        be another file's by then: the borrowed one stays what it is.
        """
        doing = "look at files of a build's container"
        if self.process.is_over or self._root_fd < 0:
            raise Conflict(f"{doing}: it has ended")
        try:
            return os.dup(self._root_fd)
        except OSError as e:
            raise explained(e, doing) from e

    def _let_go_of_root(self) -> None:
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1

    def _all_ended(self, ended: asyncio.Future[int]) -> None:
        code = self._monitor.exited.result().code
        for one, its_code in ((ended, code), *((other, _LOST) for other in self._execs.values())):
            if not one.done():
                one.set_result(its_code)

    def _exec_ended(self, exec_id: str, code: int) -> None:
        found = self._execs.get(exec_id)
        if found is not None and not found.done():
            found.set_result(code)

    async def add(self, command: BuildCommand) -> InteractiveProcess:
        """Start another process (RuntimeFailure: it cannot be executed; Conflict: the container has ended)."""
        process = bundle.added(command, await self._apparmor.of_command(insecure=command.insecure))
        if self._monitor.exited.done():
            raise Conflict("start a process in a build's container: it has ended")
        exec_id = secrets.token_hex(16)
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._execs[exec_id] = ended
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                await self._monitor.exec(
                    exec_id,
                    ExecProcess(document=process, tty=command.tty),
                    theirs.fileno(),
                    _options(tty=command.tty),
                )
            streams = await _over(ours, tty=command.tty)
        except BaseException:
            del self._execs[exec_id]
            ours.close()
            raise
        found = InteractiveProcess(self._monitor, streams, exec_id, ended)
        self._processes = [one for one in self._processes if not one.is_closed] + [found]
        ended.add_done_callback(lambda _ended: self._execs.pop(exec_id, None))
        return found

    def close(self) -> None:
        """Let go of all streams, and of the root."""
        for one in self._processes:
            one.close()
        self._let_go_of_root()


async def attached(monitor: MonitorClient, *, tty: bool) -> _Streams:
    """The streams of a container that has not begun (KetchError)."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            await monitor.attach(theirs.fileno(), _options(tty=tty))
        return await _over(ours, tty=tty)
    except BaseException:
        ours.close()
        raise


def _options(*, tty: bool) -> StreamOptions:
    """The streams of a process, as its monitor gives them."""
    return StreamOptions(stdin=True, stdout=True, stderr=not tty, output="raw" if tty else "mux")


async def _over(ours: socket.socket, *, tty: bool) -> _Streams:
    """The streams over a connected socket, which they own from then on."""
    ours.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=ours, limit=_PIECE)
    return _Streams(reader, writer, tty=tty)
