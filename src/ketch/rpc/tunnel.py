"""A stream of bytes inside a call whose messages are pieces of it."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ketch.rpc.status import RpcError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_PIECE = 1 << 15  # bytes of a message, as BuildKit's own peers cut them


class _Call(Protocol):
    """A call in either role, as far as it is needed here."""

    async def receive_many(self) -> list[Any]: ...

    async def send_many(self, messages: Sequence[Any], /) -> None: ...


class Tunnel:
    """A `ByteStream` inside of ``call``, whose messages have the field ``data``; ``message`` makes one of bytes.

    It does not end the call: who serves or makes that does so, when the tunnel is closed.
    """

    def __init__(self, call: _Call, message: Callable[[bytes], Any]) -> None:
        self._call, self._message = call, message
        self._closed = asyncio.Event()

    async def receive(self) -> bytes:
        """The bytes of the messages that are here."""
        while not self._closed.is_set():
            with _as_broken():
                messages = await self._call.receive_many()
            data = b"".join([message.data for message in messages])
            if data or not messages:
                return data
        return b""

    async def send(self, data: bytes) -> None:
        """Send the bytes in messages."""
        if self._closed.is_set():
            raise ConnectionResetError("the tunnel is closed")
        with _as_broken():
            await self._call.send_many([self._message(data[at : at + _PIECE]) for at in range(0, len(data), _PIECE)])

    async def close(self) -> None:
        """Use the call no more."""
        self._closed.set()


@contextmanager
def _as_broken() -> Iterator[None]:
    """Break the stream inside of a call that ends."""
    try:
        yield
    except RpcError as e:
        raise ConnectionResetError(f"the call around it ended: {e}") from e
