"""The name server that containers in user-defined networks see at 127.0.0.11.

    container's namespace          this process
    127.0.0.11:53 (UDP, TCP) ────► one thread, one epoll ──► directory of names
                                                        └──► other servers (``upstream``)

The sockets were opened inside the namespace; no packet is redirected and no process is added.  All containers are
served by one thread, apart from the API's event loop, which may be busy.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import select
import socket
import threading
from collections import deque
from random import randrange
from time import monotonic
from typing import TYPE_CHECKING

from msgspec import Struct, field

from ketch.network.dns import message
from ketch.network.dns.sockets import DnsSockets, own_namespace, visiting
from ketch.network.dns.streams import IDLE_S, MOST_CONNECTIONS, StreamConnection
from ketch.network.dns.upstream import NameServer, PendingQuery, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.network.dns.directory import Directory
    from ketch.network.ports.outside import Outside

log = logging.getLogger(__name__)
_AT_ONCE = 64
_MOST_ASKS, _MOST_ASKS_OF_ONE = 1024, 256
_RECEIVE_BYTES = 4096
_SWEEP_S = 5.0


class _Served(Struct, eq=False):
    """A served container: its sockets and its upstream servers; ``netns_fd`` is ours."""

    container_id: str
    sockets: DnsSockets
    servers: Sequence[NameServer]
    netns_fd: int
    connections: set[StreamConnection] = field(default_factory=set)


class Resolver:
    """The resolver of all served containers; its methods are thread-safe."""

    def __init__(self, directory: Directory, outside: Outside | None = None) -> None:
        """``outside``: where the host's servers are asked from, if not where this is made."""
        self._directory, self._outside = directory, outside
        self._poll = select.epoll()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._upstream = Upstream(self._poll, min(_MOST_ASKS, limit // 4), _MOST_ASKS_OF_ONE)
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._calls: deque[Callable[[], None]] = deque()
        self._served: dict[str, _Served] = {}
        self._by_fd: dict[int, Callable[[int], None]] = {}
        self._running = True
        self._home = own_namespace()
        self._thread = threading.Thread(target=self._run, name="dns", daemon=True)

    # -- from other threads ----------------------------------------------------------------------

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering and close every socket."""
        self._call(self._stop)
        self._thread.join()

    def serve(self, container_id: str, sockets: DnsSockets, *, servers: Sequence[NameServer], netns_fd: int) -> None:
        """Answer on a container's sockets, which are ours from now on; ``netns_fd`` stays the caller's."""
        served = _Served(container_id, sockets, tuple(servers), os.dup(netns_fd))
        self._call(lambda: self._add(served))

    def update(self, container_id: str, servers: Sequence[NameServer]) -> None:
        """Change a container's upstream servers."""

        def change() -> None:
            if (served := self._served.get(container_id)) is not None:
                served.servers = tuple(servers)

        self._call(change)

    def forget(self, container_id: str) -> None:
        """Stop answering a container; no error when it is not served."""
        self._call(lambda: self._remove(container_id))

    def _call(self, call: Callable[[], None]) -> None:
        self._calls.append(call)
        os.eventfd_write(self._wakeup, 1)

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        self._poll.register(self._wakeup, select.EPOLLIN)
        swept = monotonic()
        while self._running:
            timeout = self._upstream.timeout()
            if any(s.connections for s in self._served.values()):
                timeout = min(timeout, _SWEEP_S) if timeout >= 0 else _SWEEP_S
            for fd, events in self._poll.poll(timeout, _AT_ONCE):
                self._guarded(self._dispatch, fd, events)
            self._guarded(self._upstream.expire)
            if monotonic() - swept > _SWEEP_S:
                swept = monotonic()
                self._sweep(swept)
        self._upstream.close()
        for container_id in list(self._served):
            self._remove(container_id)
        self._poll.close()
        os.close(self._wakeup)
        os.close(self._home)

    @staticmethod
    def _guarded(call: Callable[..., None], *args: int) -> None:
        try:
            call(*args)
        except Exception:
            # One container's strange packet must not end the service of the others.
            log.exception("answer names")

    def _dispatch(self, fd: int, events: int) -> None:
        if fd == self._wakeup:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(fd)
            while self._calls:
                self._calls.popleft()()
        elif (ready := self._by_fd.get(fd)) is not None:
            ready(events)
        elif self._upstream.handles(fd):
            self._upstream.ready(fd, events)

    def _stop(self) -> None:
        self._running = False

    def _add(self, served: _Served) -> None:
        self._remove(served.container_id)
        self._served[served.container_id] = served
        udp, tcp = served.sockets.udp, served.sockets.tcp
        self._by_fd[udp.fileno()] = lambda _events: self._datagrams(served, udp)
        self._by_fd[tcp.fileno()] = lambda _events: self._accept(served, tcp)
        for sock in (udp, tcp):
            self._poll.register(sock.fileno(), select.EPOLLIN)

    def _remove(self, container_id: str) -> None:
        served = self._served.pop(container_id, None)
        if served is None:
            return
        self._upstream.forget(container_id)
        for connection in list(served.connections):
            self._hang_up(served, connection)
        for fd in served.sockets.fds():
            del self._by_fd[fd]
            # Somebody who keeps a copy (the container's monitor) would keep it in the set, were it only closed.
            self._poll.unregister(fd)
        served.sockets.close()
        os.close(served.netns_fd)

    # -- clients -----------------------------------------------------------------------------------

    def _datagrams(self, served: _Served, udp: socket.socket) -> None:
        for _ in range(_AT_ONCE):  # then it is somebody else's turn
            try:
                data, sender = udp.recvfrom(_RECEIVE_BYTES)
            except OSError as e:
                if e.errno not in (errno.EAGAIN, errno.EINTR):
                    log.debug("read a query of container %s: %s", served.container_id[:12], e)
                return
            self._handle(served, data, lambda answer, to=sender: _send(udp, answer, to), stream=False)  # type: ignore[misc]

    def _accept(self, served: _Served, tcp: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it went away before its turn
            sock, _ = tcp.accept()
            if len(served.connections) >= MOST_CONNECTIONS:
                self._hang_up(served, min(served.connections, key=lambda c: c.used))
            connection = StreamConnection(
                sock,
                served.container_id,
                self._poll,
                lambda data, reply: self._handle(served, data, reply, stream=True),
            )
            served.connections.add(connection)
            self._by_fd[sock.fileno()] = lambda events: self._connection_ready(served, connection, events)

    def _connection_ready(self, served: _Served, connection: StreamConnection, events: int) -> None:
        if not connection.ready(events):
            self._hang_up(served, connection)

    def _hang_up(self, served: _Served, connection: StreamConnection) -> None:
        served.connections.discard(connection)
        self._by_fd.pop(connection.sock.fileno(), None)
        connection.close()

    def _sweep(self, now: float) -> None:
        for served in self._served.values():
            for connection in [c for c in served.connections if now - c.used > IDLE_S]:
                self._hang_up(served, connection)

    # -- questions ---------------------------------------------------------------------------------

    def _handle(self, served: _Served, data: bytes, reply: Callable[[bytes], None], *, stream: bool) -> None:
        try:
            query = message.parse(data)
        except message.Malformed as e:
            if e.answerable:
                reply(message.failure(data, message.FORMERR))
            return
        if query.opcode != message.QUERY:
            reply(message.answer(data, query, [], code=message.NOTIMP))
            return
        records = self._records(served.container_id, query)
        if records is not None:
            reply(message.answer(data, query, records, room=None if stream else query.room))
        elif served.servers:
            ask = PendingQuery(
                data,
                query,
                served.servers,
                stream,
                reply,
                lambda server, kind: self._open(served, server, kind),
                served.container_id,
            )
            self._upstream.ask(ask)
        else:
            # Nobody else can know: an end to the search.  (SERVFAIL or REFUSED would make libc ask again.)
            reply(message.answer(data, query, [], code=message.NXDOMAIN))

    def _records(self, container_id: str, query: message.Query) -> list[bytes] | None:
        """The records of one of our names; None for other names, which alone are forwarded."""
        if query.kind == message.PTR:
            address = message.reverse_address(query.name)
            name = self._directory.reverse(container_id, address) if address else None
            try:
                return [message.pointer(name)] if name else None
            except message.Malformed:
                return []  # a container's name may be longer than a label of DNS: the address is ours, and has none
        addresses = self._directory.find(container_id, query.name)
        if addresses is None:
            return None
        if query.kind not in (message.A, message.AAAA):
            return []
        chosen = [a for a in addresses if (":" in a) == (query.kind == message.AAAA)]
        first = randrange(len(chosen)) if len(chosen) > 1 else 0
        return [message.address(a) for a in chosen[first:] + chosen[:first]]

    def _open(self, served: _Served, server: NameServer, kind: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        if not server.inside:
            return self._outside.call(socket.socket, family, kind) if self._outside else socket.socket(family, kind)
        with visiting(served.netns_fd, self._home):
            return socket.socket(family, kind)


def _send(udp: socket.socket, data: bytes, to: tuple[str, int]) -> None:
    # A client that has gone, or a full buffer: it asks again, as with any lost datagram.
    with contextlib.suppress(OSError):
        udp.sendto(data, to)
