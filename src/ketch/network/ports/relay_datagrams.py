"""Datagrams to a relayed port: each client has a socket to the container, until nothing has come for a while."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ketch.network.ports.relay_poll import Poll

_MOST = 1024
_AT_ONCE = 64
_SIZE = 65536
_IDLE_S = 90.0
_SO_DETACH_FILTER = 27
_IP_PKTINFO = 8
_PKTINFO_BYTES = 20  # struct in6_pktinfo; in_pktinfo has 12


class DatagramPort:
    """A host port and its clients."""

    def __init__(self, poll: Poll, held: socket.socket, target: tuple[str, int]) -> None:
        self._poll = poll
        self._held = held
        self._target = target
        self._clients: dict[Any, _Client] = {}  # by address; the one that was silent the longest comes first
        held.setblocking(False)
        # An answer comes from the address that was asked.
        if held.family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            held.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        with contextlib.suppress(OSError):  # there is no filter: it has been served before
            held.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        poll.watch(held.fileno(), self._received, select.EPOLLIN)

    def close(self) -> None:
        """Forget all clients."""
        for address in list(self._clients):
            self._drop(address)
        self._poll.forget(self._held.fileno())

    def sweep(self) -> bool:
        """Forget those from whom and to whom nothing came for a while; whether there are others."""
        last = time.monotonic() - _IDLE_S
        for address in [address for address, client in self._clients.items() if client.heard < last]:
            self._drop(address)
        return bool(self._clients)

    def _received(self, _events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, extra, _, address = self._held.recvmsg(_SIZE, socket.CMSG_SPACE(_PKTINFO_BYTES))
            except OSError:
                return
            with contextlib.suppress(OSError):  # as on any way, a datagram may get lost
                self._client(address, extra).sock.send(data)

    def _client(self, address: Any, extra: list[tuple[int, int, bytes]]) -> _Client:
        found = self._clients.pop(address, None)
        if found is None:
            if len(self._clients) >= _MOST:
                self._drop(next(iter(self._clients)))
            found = _Client(self, address, self._target)
            self._poll.watch(found.sock.fileno(), found.answered, select.EPOLLIN)
        found.extra, found.heard = extra, time.monotonic()
        self._clients[address] = found
        return found

    def answer(self, data: bytes, client: _Client) -> None:
        """Send a client what the container answered."""
        with contextlib.suppress(OSError):
            self._held.sendmsg([data], client.extra, 0, client.address)

    def _drop(self, address: Any) -> None:
        client = self._clients.pop(address)
        self._poll.forget(client.sock.fileno())
        client.sock.close()


class _Client:
    """A client, and the socket that stands for it before the container."""

    def __init__(self, port: DatagramPort, address: Any, target: tuple[str, int]) -> None:
        self._port = port
        self.address = address
        self.extra: list[tuple[int, int, bytes]] = []
        self.heard = 0.0
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self.sock.connect(target)
        except OSError:
            self.sock.close()
            raise

    def answered(self, _events: int) -> None:
        """Pass the container's answers on."""
        for _ in range(_AT_ONCE):
            try:
                data = self.sock.recv(_SIZE)
            except BlockingIOError:
                return
            except OSError:  # the container's port is closed: the client learns it by silence
                continue
            self.heard = time.monotonic()
            self._port.answer(data, self)
