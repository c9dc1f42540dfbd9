"""DNS over TCP (RFC 7766): queries of two bytes of length and the message, any number of them on a connection."""

from __future__ import annotations

import contextlib
import errno
import select
import struct
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    Handle = Callable[[bytes, Callable[[bytes], None]], None]

IDLE_S = 10.0
MOST_CONNECTIONS = 128
_LENGTH = struct.Struct("!H")
_MOST_UNSENT = 1 << 20
_RECEIVE_BYTES = 65535


class StreamConnection:
    """One client's connection; ``handle(query, reply)`` is called for each query."""

    def __init__(self, sock: socket.socket, owner: str, poll: select.epoll, handle: Handle) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.owner = owner
        self.used = monotonic()
        self._poll = poll
        self._handle = handle
        self._received = b""
        self._unsent = b""
        poll.register(sock.fileno(), select.EPOLLIN)

    def ready(self, events: int) -> bool:
        """Read and write what the socket allows; False when the connection is over."""
        self.used = monotonic()
        try:
            if events & select.EPOLLOUT:
                self._send(b"")
            if events & ~select.EPOLLOUT:
                return self._receive()
        except OSError as e:
            return e.errno in (errno.EAGAIN, errno.EINTR)
        return True

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def _receive(self) -> bool:
        data = self.sock.recv(_RECEIVE_BYTES)
        if not data:
            return False
        self._received += data
        while len(self._received) >= 2:
            length = _LENGTH.unpack_from(self._received)[0]
            if len(self._received) < 2 + length:
                break
            query, self._received = self._received[2 : 2 + length], self._received[2 + length :]
            self._handle(query, self.reply)
        return len(self._unsent) < _MOST_UNSENT

    def reply(self, data: bytes) -> None:
        """Send one answer, now or when the socket has room; none to a closed connection."""
        if self.sock.fileno() < 0:
            return
        with contextlib.suppress(OSError):
            self._send(_LENGTH.pack(len(data)) + data)

    def _send(self, data: bytes) -> None:
        waiting = bool(self._unsent)
        self._unsent += data
        with contextlib.suppress(BlockingIOError):  # the client is slow; what is unsent goes when it takes it
            self._unsent = self._unsent[self.sock.send(self._unsent) :] if self._unsent else b""
        if bool(self._unsent) != waiting:
            self._poll.modify(self.sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0))
