"""TCP connections to a relayed port: each is one more to the container, and bytes are copied both ways."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ketch.network.ports.relay_poll import Poll

_BACKLOG = 512
_CHUNK = 1 << 17
_MOST = 4096
_AT_ONCE = 16
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class StreamPort:
    """A listening host port and its connections."""

    def __init__(self, poll: Poll, held: socket.socket, target: tuple[str, int]) -> None:
        self.poll = poll
        self.target = target
        self.connections: set[_Connection] = set()
        self._full = False
        self._held = held
        held.setblocking(False)
        # Ended connections, which inherit this, are in nobody's way afterwards, and those of an earlier ketchd not in
        # listen's, which looks at them again; a listening socket shares with none.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.listen(_BACKLOG)
        poll.watch(held.fileno(), self._accept, select.EPOLLIN)

    def close(self) -> None:
        """Cut all connections; who connects now waits until the socket is served again, or closed."""
        for connection in list(self.connections):
            connection.close()
        self.poll.forget(self._held.fileno())

    def sweep(self) -> bool:
        """Accept again where there was no room; a silent connection is as good as any."""
        if self._full and len(self.connections) < _MOST:
            self._go_on()
        return self._full

    def _accept(self, _events: int) -> None:
        for _ in range(_AT_ONCE):
            if len(self.connections) >= _MOST:
                self._wait()
                return
            try:
                client, _ = self._held.accept()
            except OSError as e:  # nobody there any more, or no descriptor left
                if e.errno in _NO_ROOM:
                    self._wait()
                return
            try:
                self.connections.add(_Connection(self, client))
            except OSError:
                client.close()

    def ended(self, connection: _Connection) -> None:
        """One connection less."""
        self.connections.discard(connection)
        if self._full:
            self._go_on()

    def _wait(self) -> None:
        """Leave who comes in the kernel's queue, until a connection ends or the next sweep."""
        self._full = True
        self.poll.change(self._held.fileno(), 0)

    def _go_on(self) -> None:
        self._full = False
        self.poll.change(self._held.fileno(), select.EPOLLIN)


class _Connection:
    """A client's connection, and ours to the container."""

    def __init__(self, port: StreamPort, client: socket.socket) -> None:
        self._port = port
        self._poll = port.poll
        family = socket.AF_INET6 if ":" in port.target[0] else socket.AF_INET
        server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            client.setblocking(False)
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if (error := server.connect_ex(port.target)) not in (0, errno.EINPROGRESS):
                raise OSError(error, "connect")
        except OSError:
            server.close()
            raise
        self._client, self._server = client, server
        self._there = _Flow(client, server)
        self._back = _Flow(server, client)
        self._connected = False
        self._events: dict[int, int | None] = {client.fileno(): 0, server.fileno(): select.EPOLLOUT}
        self._poll.watch(client.fileno(), self._client_ready, 0)
        self._poll.watch(server.fileno(), self._server_ready, select.EPOLLOUT)

    def close(self) -> None:
        """Close both ends."""
        for sock in (self._client, self._server):
            self._poll.forget(sock.fileno())
            sock.close()
        self._port.ended(self)

    def _client_ready(self, events: int) -> None:
        self._ready(self._client, events, self._there, self._back)

    def _server_ready(self, events: int) -> None:
        if not self._connected:
            if self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.close()  # the container's program does not listen: the client sees an end at once
                return
            self._connected = True
        self._ready(self._server, events, self._back, self._there)

    def _ready(self, sock: socket.socket, events: int, incoming: _Flow, outgoing: _Flow) -> None:
        if events & select.EPOLLHUP and not incoming.hungry:
            # Both of its directions have ended; it would say so without an end while the other one takes what is read.
            self._events[sock.fileno()] = None
            self._poll.forget(sock.fileno())
        try:
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                incoming.read()
            if events & select.EPOLLOUT:
                outgoing.write()
        except OSError:
            self.close()
            return
        if self._there.done and self._back.done:
            self.close()
            return
        for sock, reads, writes in (
            (self._client, self._there, self._back),
            (self._server, self._back, self._there),
        ):
            self._want(sock.fileno(), reads, writes)

    def _want(self, fd: int, reads: _Flow, writes: _Flow) -> None:
        if not self._connected:
            return
        events = (select.EPOLLIN if reads.hungry else 0) | (select.EPOLLOUT if writes.data else 0)
        if self._events[fd] is not None:
            if events != self._events[fd]:
                self._poll.change(fd, events)
                self._events[fd] = events
        elif reads.hungry:
            self._poll.watch(fd, self._client_ready if reads is self._there else self._server_ready, events)
            self._events[fd] = events


class _Flow:
    """The bytes of one direction; read only when all of the last were written."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self._source, self._target = source, target
        self.data = memoryview(b"")
        self._ended = False
        self.done = False

    @property
    def hungry(self) -> bool:
        """Whether to read on."""
        return not (self.data or self._ended)

    def read(self) -> None:
        """Take what is there, and pass it on as far as it goes."""
        if not self.hungry:
            return
        try:
            data = self._source.recv(_CHUNK)
        except BlockingIOError:
            return
        self._ended = not data
        self.data = memoryview(data)
        self.write()

    def write(self) -> None:
        """Pass on what is left, and the end."""
        if self.data:
            with contextlib.suppress(BlockingIOError):
                self.data = self.data[self._target.send(self.data) :]
        if self._ended and not self.data and not self.done:
            self.done = True
            with contextlib.suppress(OSError):  # the other side has gone already
                self._target.shutdown(socket.SHUT_WR)
