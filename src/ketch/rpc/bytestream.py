"""Streams of bytes that HTTP/2 connections run on, and asyncio's transports as such."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    import ssl

_UNREAD = 1 << 20  # bytes that are kept for a reader before the socket is left alone
_UNSENT = 1 << 20


class ByteStream(Protocol):
    """Bytes in both directions, in order, without borders."""

    async def receive(self) -> bytes:
        """The next bytes, at least one; b"" at the end (OSError when the peer broke off)."""

    async def send(self, data: bytes) -> None:
        """Send all of ``data``; waits while the peer does not read (OSError when it is gone)."""

    async def close(self) -> None:
        """Close both directions, at once; what was sent before may still arrive.  A second time it does nothing."""


class TransportStream(asyncio.Protocol):
    """An asyncio transport as a `ByteStream`; made by `over_socket`, `taken_over`, or as a server's protocol."""

    def __init__(self, early: bytes = b"") -> None:
        self._chunks: list[bytes] = [early] if early else []
        self._unread = len(early)
        self._reader: asyncio.Future[None] | None = None
        self._writers: list[asyncio.Future[None]] = []
        self._full = self._ended = False
        self._error: Exception | None = None
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.get_running_loop().create_future()

    @property
    def transport(self) -> asyncio.Transport | None:
        """asyncio's side of it."""
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_UNSENT)

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        self._chunks.append(data)
        self._unread += len(data)
        if self._unread >= _UNREAD and self._transport is not None:
            self._transport.pause_reading()
        self._wake_reader()

    def eof_received(self) -> bool:
        """The peer ended its side; ours is still open."""
        self._ended = True
        self._wake_reader()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._ended, self._error = True, exc
        self._wake_reader()
        self.resume_writing()
        self._lost.set_result(None)

    def pause_writing(self) -> None:
        """The peer does not read as fast as we write."""
        self._full = True

    def resume_writing(self) -> None:
        """The peer has read enough."""
        self._full = False
        for waiter in self._writers:
            if not waiter.done():
                waiter.set_result(None)
        self._writers.clear()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def receive(self) -> bytes:
        """The next bytes, as many as there are."""
        while not self._chunks:
            if self._ended:
                if self._error is not None:
                    raise ConnectionResetError(f"the connection broke off: {self._error}")
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        chunks, self._chunks = self._chunks, []
        if self._unread >= _UNREAD and self._transport is not None and not self._lost.done():
            self._transport.resume_reading()
        self._unread = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def send(self, data: bytes) -> None:
        """Give the bytes to the transport; wait while it has too many."""
        if self._transport is None or self._lost.done() or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._transport.write(data)
        while self._full and not self._lost.done():
            waiter = asyncio.get_running_loop().create_future()
            self._writers.append(waiter)
            await waiter
        if self._error is not None:
            raise ConnectionResetError(f"the connection broke off: {self._error}")

    async def close(self) -> None:
        """Close it; what the transport still has is sent, as long as the peer reads."""
        if self._transport is None or self._lost.done():
            return
        if self._full:
            self._transport.abort()
        else:
            self._transport.close()
        await asyncio.wait([self._lost], timeout=1)
        self._transport.abort()


def taken_over(transport: asyncio.Transport, early: bytes = b"") -> TransportStream:
    """A transport that had another protocol, with the bytes that that one was given too many."""
    stream = TransportStream(early)
    stream.connection_made(transport)
    transport.set_protocol(stream)
    transport.resume_reading()
    return stream


async def over_socket(sock: socket.socket, early: bytes = b"") -> TransportStream:
    """A connected socket, which belongs to the stream from now on; ``early`` has been read of it already."""
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    _, stream = await loop.connect_accepted_socket(lambda: TransportStream(early), sock)
    return stream


async def connect(address: str | tuple[str, int], tls: ssl.SSLContext | None = None) -> TransportStream:
    """A new connection: to a unix socket's path, or to a host and a port."""
    loop = asyncio.get_running_loop()
    if isinstance(address, str):
        _, stream = await loop.create_unix_connection(TransportStream, address)
    else:
        _, stream = await loop.create_connection(TransportStream, *address, ssl=tls)
    return stream
