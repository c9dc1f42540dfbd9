"""Sockets here behind which are a client's ssh agents: what is said there goes through calls to the client."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from typing import TYPE_CHECKING

from ketch.buildkit.services.credentials import SSHService
from ketch.buildkit.wire.credentials.ssh_pb2 import BytesMessage
from ketch.errors import KetchError

if TYPE_CHECKING:
    from ketch.rpc.client import Channel, ClientCall

    Call = ClientCall[BytesMessage, BytesMessage]

log = logging.getLogger(__name__)
_PIECE = 32 << 10
_ID = "buildkit.ssh.id"
_TALKS = 64  # connections of one agent at once
_numbers = itertools.count(1)


class ForwardedAgent:
    """A socket in a directory, as the way to one of a client's agents; `close` ends it and its connections."""

    def __init__(self, channel: Channel, name: str, directory: str) -> None:
        self.path = os.path.join(directory, f"agent-{next(_numbers)}.sock")
        self._channel, self._name = channel, name
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Begin to accept connections, of root alone (OSError)."""
        self._server = await asyncio.start_unix_server(self._accepted, self.path)
        os.chmod(self.path, 0o600)

    async def close(self) -> None:
        """End it."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        for task in self._talks:
            task.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._talks) >= _TALKS:
            writer.close()
            return
        task = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                async with self._channel.stream(SSHService.ForwardAgent, {_ID: [self._name]}) as call:
                    back = asyncio.create_task(_answered(call, writer))
                    try:
                        while data := await reader.read(_PIECE):
                            await call.send(BytesMessage(data=data))
                        await call.end()
                        await back
                    finally:
                        back.cancel()
                        await asyncio.gather(back, return_exceptions=True)
            except (KetchError, OSError) as e:
                log.info("pass on what is said to the ssh agent `%s` of a client: %s", self._name, e)


async def _answered(call: Call, writer: asyncio.StreamWriter) -> None:
    while (message := await call.receive()) is not None:
        writer.write(message.data)
        await writer.drain()
    writer.write_eof()
