"""The relay of published ports: datagrams, and a machine that has no descriptor left."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

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


@pytest.mark.parametrize(("host", "container"), [("127.0.0.1", "127.0.0.1"), ("::1", "127.0.0.1"), ("::1", "::1")])
def test_datagrams(host, container):
    """Each client gets its own answers, from the address that it has asked."""
    families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in (host, container)]
    with contextlib.closing(Relay()) as relay, contextlib.ExitStack() as stack:
        held, server = (stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for family in families)
        held.bind(("::" if ":" in host else "0.0.0.0", 0))
        server.bind((container, 0))
        server.settimeout(patient(10))
        relay.serve(held, server.getsockname()[:2])
        clients = [stack.enter_context(socket.socket(families[0], socket.SOCK_DGRAM)) for _ in range(2)]
        for number, client in enumerate(clients):
            client.settimeout(patient(10))
            client.connect((host, held.getsockname()[1]))
            client.send(b"%d" % number)
            data, address = server.recvfrom(100)
            server.sendto(data * 2, address)
        assert [client.recv(100) for client in clients] == [b"00", b"11"]
