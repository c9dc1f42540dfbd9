"""A stream of bytes inside a call whose messages are pieces of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE = 1 << 15  # bytes of a message, as BuildKit's own peers cut them


class _Call(Protocol):
    """A call in either role, as far as it is needed here."""

    async def receive(self) -> Any: ...

    async def send(self, message: Any, /) -> None: ...


class Tunnel:
    """A `ByteStream` inside of ``call``, whose messages have the field ``data``; ``message`` makes one of bytes.

    It does not end the call: who serves or makes that does so, when the tunnel is closed.
    """

    def __init__(self, call: _Call, message: Callable[[bytes], Any]) -> None:
        self._call, self._message = call, message
        self._closed = asyncio.Event()

    async def receive(self) -> bytes:
        """The next message's bytes."""
        while not self._closed.is_set():
            message = await self._call.receive()
            if message is None:
                return b""
            if message.data:
                return bytes(message.data)
        return b""

    async def send(self, data: bytes) -> None:
        """Send the bytes in messages."""
        if self._closed.is_set():
            raise ConnectionResetError("the tunnel is closed")
        for at in range(0, len(data), _PIECE):
            await self._call.send(self._message(data[at : at + _PIECE]))

    async def close(self) -> None:
        """Use the call no more."""
        self._closed.set()
