"""A socket for one command, behind which is an ssh agent of the client's.

The command's user must be able to connect to it, and the agent asks who connects: so the command gets a socket of its
own, with the owner and the mode that were asked for, and what is said there is passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ketch.build.providers import CommandMount

log = logging.getLogger(__name__)
_PIECE = 1 << 16
_ROOM = 16  # connections that wait


class AgentSocket:
    """A listening socket, of ``owner`` by the machine's ids; `close` ends it and its connections."""

    def __init__(self, directory: str, name: str, mount: CommandMount, owner: tuple[int, int]) -> None:
        self.path = os.path.join(directory, name)
        self._mount, self._owner = mount, owner
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()
        self._directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._socket = _bound(self._directory_fd, name)
        except BaseException:
            os.close(self._directory_fd)
            raise

    async def listen(self) -> None:
        """Begin to accept connections (OSError)."""
        os.chown(self.path, *self._owner)
        os.chmod(self.path, self._mount.mode & 0o777)
        self._server = await asyncio.start_unix_server(self._accepted, sock=self._socket, backlog=_ROOM)

    async def close(self) -> None:
        """End the socket and its connections."""
        if self._server is None:
            self._socket.close()
        else:
            self._server.close()
        os.close(self._directory_fd)  # by which asyncio, too, finds the socket that it removes (Python 3.13)
        for task in self._talks:
            task.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                agent_reader, agent_writer = await asyncio.open_unix_connection(self._mount.socket_path)
                with contextlib.closing(agent_writer):
                    back = asyncio.create_task(_pass_on(agent_reader, writer))
                    try:
                        await _pass_on(reader, agent_writer)
                        await back
                    finally:
                        back.cancel()
            except OSError as e:
                log.info("pass on what is said to an ssh agent: %s", e.strerror)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def _bound(directory_fd: int, name: str) -> socket.socket:
    """A socket in a directory, whose path may be longer than one of a socket (unix(7): 107 bytes)."""
    with contextlib.ExitStack() as undo:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        undo.callback(found.close)
        found.bind(f"/proc/self/fd/{directory_fd}/{name}")
        undo.pop_all()
    return found
