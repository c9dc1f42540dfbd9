"""Forwarding of questions to upstream servers, each over a socket of its own, with timeouts.

    ask ─► server 1 ─(no answer in 2 s, refused, error)─► server 2 ─► … ─► SERVFAIL

A socket of its own for every try gives it a source port that nobody can guess; it is connected, so that the kernel
drops what comes from elsewhere and reports a server that is not there at once.
"""

from __future__ import annotations

import errno
import secrets
import select
import socket
import struct
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from ketch.network.dns import message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TRY_S = 2.0
_RECEIVE_BYTES = 65535
_LENGTH = struct.Struct("!H")


class NameServer(NamedTuple):
    """A name server; ``inside``: it is asked from the container's network namespace, otherwise from the host's."""

    address: str
    port: int = 53
    inside: bool = False


class PendingQuery(Struct, eq=False):
    """A forwarded question; ``reply`` takes the answer's bytes, ``open`` makes a socket for a server."""

    data: bytes
    query: message.Query
    servers: Sequence[NameServer]
    stream: bool
    reply: Callable[[bytes], None]
    open: Callable[[NameServer, int], socket.socket]
    owner: str
    number: int = 0
    tries: int = 0
    sock: socket.socket | None = None
    deadline: float = 0.0
    unsent: bytes = b""
    received: bytes = b""


class Upstream:
    """All forwarded questions, on the resolver's epoll; used by its thread only."""

    def __init__(self, poll: select.epoll, most: int, most_of_one: int) -> None:
        self._poll = poll
        self._most = most
        self._most_of_one = most_of_one
        self._asks: dict[int, PendingQuery] = {}
        self._order: deque[tuple[float, PendingQuery]] = deque()  # every try has the same time: the oldest ends first
        self._count: dict[str, int] = {}

    def ask(self, ask: PendingQuery) -> None:
        """Forward a question; beyond a limit it is answered with SERVFAIL at once."""
        if len(self._asks) >= self._most or self._count.get(ask.owner, 0) >= self._most_of_one:
            self._fail(ask)
            return
        self._count[ask.owner] = self._count.get(ask.owner, 0) + 1
        self._next(ask)

    def handles(self, fd: int) -> bool:
        """Whether a descriptor belongs to a forwarded question."""
        return fd in self._asks

    def timeout(self) -> float:
        """Seconds until the next timeout; -1: none."""
        while self._order and (self._order[0][1].sock is None or self._order[0][1].deadline != self._order[0][0]):
            self._order.popleft()
        return max(0.0, self._order[0][0] - monotonic()) if self._order else -1.0

    def expire(self) -> None:
        """Turn to the next server for questions that have timed out."""
        now = monotonic()
        while self._order and self._order[0][0] <= now:
            deadline, ask = self._order.popleft()
            if ask.sock is not None and ask.deadline == deadline:
                self._drop(ask)
                self._next(ask)

    def forget(self, owner: str) -> None:
        """Drop a container's questions."""
        for ask in [a for a in self._asks.values() if a.owner == owner]:
            self._end(ask)

    def close(self) -> None:
        """Drop all questions."""
        for ask in list(self._asks.values()):
            self._end(ask)

    def ready(self, fd: int, events: int) -> None:
        """Handle a socket that is writable, readable or has failed."""
        ask = self._asks[fd]
        try:
            done = self._stream(ask, events) if ask.stream else self._datagram(ask)
        except OSError as e:
            if e.errno in (errno.EAGAIN, errno.EINTR):
                return
            done = None
            self._drop(ask)
            self._next(ask)
        if done is not None:
            self._end(ask)
            ask.reply(message.with_id(done, ask.query.id))

    # -- one question ----------------------------------------------------------------------------

    def _next(self, ask: PendingQuery) -> None:
        while ask.tries < len(ask.servers):
            server = ask.servers[ask.tries]
            ask.tries += 1
            try:
                self._try(ask, server)
            except OSError:
                self._drop(ask)
                continue
            return
        self._end(ask)
        self._fail(ask)

    def _try(self, ask: PendingQuery, server: NameServer) -> None:
        ask.number = secrets.randbits(16)
        ask.received = b""
        sock = ask.sock = ask.open(server, socket.SOCK_STREAM if ask.stream else socket.SOCK_DGRAM)
        sock.setblocking(False)
        self._asks[sock.fileno()] = ask
        data = message.with_id(ask.data, ask.number)
        if ask.stream:
            code = sock.connect_ex((server.address, server.port))
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, "connect")
            ask.unsent = _LENGTH.pack(len(data)) + data
            self._poll.register(sock.fileno(), select.EPOLLOUT | select.EPOLLIN)
        else:
            sock.connect((server.address, server.port))
            sock.send(data)
            self._poll.register(sock.fileno(), select.EPOLLIN)
        ask.deadline = monotonic() + TRY_S
        self._order.append((ask.deadline, ask))

    def _datagram(self, ask: PendingQuery) -> bytes | None:
        assert ask.sock is not None
        data = ask.sock.recv(_RECEIVE_BYTES)
        return data if message.answers(data, ask.data, ask.query.end, ask.number) else None

    def _stream(self, ask: PendingQuery, events: int) -> bytes | None:
        assert ask.sock is not None
        if events & select.EPOLLOUT and ask.unsent:
            ask.unsent = ask.unsent[ask.sock.send(ask.unsent) :]
            if not ask.unsent:
                self._poll.modify(ask.sock.fileno(), select.EPOLLIN)
        if not events & ~select.EPOLLOUT:
            return None
        data = ask.sock.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
        ask.received += data
        if len(ask.received) < 2 or len(ask.received) < 2 + _LENGTH.unpack_from(ask.received)[0]:
            return None
        whole = ask.received[2 : 2 + _LENGTH.unpack_from(ask.received)[0]]
        if not message.answers(whole, ask.data, ask.query.end, ask.number):
            raise ConnectionResetError(errno.EPROTO, "the server answers another question")
        return whole

    def _drop(self, ask: PendingQuery) -> None:
        if ask.sock is not None:
            self._asks.pop(ask.sock.fileno(), None)
            ask.sock.close()  # which takes it out of the epoll set, too
            ask.sock = None

    def _end(self, ask: PendingQuery) -> None:
        self._drop(ask)
        left = self._count.get(ask.owner, 0) - 1
        if left > 0:
            self._count[ask.owner] = left
        else:
            self._count.pop(ask.owner, None)

    @staticmethod
    def _fail(ask: PendingQuery) -> None:
        ask.reply(message.answer(ask.data, ask.query, [], code=message.SERVFAIL))
