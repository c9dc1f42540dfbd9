"""The relay of published ports when the machine has no descriptor left."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ketch.network.ports.relay import Relay
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROUNDS = 50


class CountingSocket(socket.socket):
    """A listening socket that counts its accepts."""

    accepts = 0

    def accept(self):
        self.accepts += 1
        return super().accept()


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Leave this process no free descriptor."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in taken:
            os.close(fd)


def echo(listener: socket.socket) -> None:
    for _ in range(2):
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(64):
                connection.sendall(data)


def test_no_descriptor_left():
    """Who connects waits, the others are served on, and the relay does not try without end."""
    relay, held = Relay(), CountingSocket(socket.AF_INET6)
    with contextlib.closing(relay), held, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(patient(10))
        held.bind(("::1", 0))
        relay.serve(held, listener.getsockname())
        with ThreadPoolExecutor(1) as pool, socket.socket(socket.AF_INET6) as late:
            served = pool.submit(echo, listener)
            with socket.create_connection(held.getsockname()[:2], timeout=patient(10)) as first:
                first.sendall(b"x")
                assert first.recv(1) == b"x"
                late.settimeout(patient(10))
                with no_descriptor_left():
                    late.connect(held.getsockname())
                    late.sendall(b"y")
                    for _ in range(_ROUNDS):
                        first.sendall(b"x")
                        assert first.recv(1) == b"x"
                    assert 0 < held.accepts < _ROUNDS
            assert late.recv(1) == b"y"
            late.close()
            served.result()
