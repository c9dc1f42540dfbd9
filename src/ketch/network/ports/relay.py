"""Relay between host ports and containers, for what the kernel cannot redirect.

Linux routes nothing from ::1, and translates no IPv6 into IPv4.  A user's engine redirects nothing: its bridges are in
a network of its own, and the host's ports are outside of it.
One thread with one epoll serves all ports, apart from the API's event loop.  It begins with the first port, so a
daemon without published ports has none of it, and a port that nobody connects to costs its socket alone.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Protocol

from ketch.network.ports.relay_datagrams import DatagramPort
from ketch.network.ports.relay_streams import StreamPort

if TYPE_CHECKING:
    from ketch.network.ports.relay_poll import Ready

log = logging.getLogger(__name__)
_SWEEP_S = 5.0
_AT_ONCE = 64


class _Port(Protocol):
    """A served host port."""

    def close(self) -> None:
        """End what goes through it, and stop serving; the host port's socket stays its owner's."""

    def sweep(self) -> bool:
        """End what has been silent for too long, try again what failed; whether to look again later."""


class Relay:
    """All served ports; methods are thread-safe.  The thread belongs to the network namespace of the first caller."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ports: dict[int, _Port] = {}
        self._ready: dict[int, Ready] = {}
        self._poll: select.epoll | None = None
        self._wake = -1
        self._thread: threading.Thread | None = None
        self._closing = False

    def serve(self, held: socket.socket, target: tuple[str, int]) -> None:
        """Copy what comes to a bound socket to an address and port of a container, from now on (OSError)."""
        with self._lock:
            self._start()
            kind = StreamPort if held.type == socket.SOCK_STREAM else DatagramPort
            self._ports[held.fileno()] = kind(self, held, target)

    def stop(self, held: socket.socket) -> None:
        """Serve a socket no longer, which stays open; idempotent."""
        with self._lock:
            port = self._ports.pop(held.fileno(), None)
            if port is not None:
                port.close()

    def close(self) -> None:
        """End all, and the thread."""
        with self._lock:
            for port in self._ports.values():
                port.close()
            self._ports.clear()
            self._closing = True
            thread, self._thread = self._thread, None
        if thread is not None:
            os.eventfd_write(self._wake, 1)
            thread.join()
            os.close(self._wake)
            assert self._poll is not None
            self._poll.close()

    # -- for its ports, with the lock held ----------------------------------------------------

    def watch(self, fd: int, ready: Ready, events: int) -> None:
        """Call ``ready`` with the events of a descriptor."""
        assert self._poll is not None
        self._poll.register(fd, events)
        self._ready[fd] = ready

    def change(self, fd: int, events: int) -> None:
        """Watch for other events."""
        assert self._poll is not None
        self._poll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Watch a descriptor no longer, before it is closed."""
        assert self._poll is not None
        if self._ready.pop(fd, None) is not None:
            self._poll.unregister(fd)

    # -- the thread --------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is not None:
            return
        self._closing = False
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="port-relay", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        poll = self._poll
        assert poll is not None
        more, swept = False, 0.0
        while True:
            found = poll.poll(_SWEEP_S if more else -1, _AT_ONCE)
            with self._lock:
                if self._closing:
                    return
                for fd, events in found:
                    self._call(fd, events)
                more = True
                if time.monotonic() >= swept + _SWEEP_S:
                    left = [port.sweep() for port in self._ports.values()]
                    more = any(left)
                    swept = time.monotonic()

    def _call(self, fd: int, events: int) -> None:
        ready = self._ready.get(fd)  # an earlier one of this round may have closed it
        if ready is None:
            return
        try:
            ready(events)
        except Exception:
            # One client's strange connection must not end all others.
            log.exception("relay between a published port and its container")
            self.forget(fd)
