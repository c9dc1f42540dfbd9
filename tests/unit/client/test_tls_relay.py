"""The relay behind which TLS is spoken: what was written before the end arrives, each direction has an end."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest

from ketch.client import tls_relay
from ketch.client.addresses import Tls
from ketch.errors import InvalidArgument, Unavailable
from tests.support.tls import certificate
from tests.support.waiting import patient

BIG = b"x" * 3_000_000


@pytest.fixture
def server(tmp_path):
    """A server of TLS on loopback: ``serve`` runs an action on its one connection; the result is its last value."""
    certificate(tmp_path, "authority")
    certificate(tmp_path, "server", signed_by="authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{tmp_path}/server.pem", f"{tmp_path}/server.key")
    threads: list[threading.Thread] = []

    def serve(action) -> tuple[socket.socket, list[bytes]]:
        listening, got = socket.create_server(("127.0.0.1", 0)), []

        def run() -> None:
            with listening, listening.accept()[0] as plain, context.wrap_socket(plain, server_side=True) as one:
                got.append(action(one))

        threads.append(threading.Thread(target=run, name="server"))
        threads[-1].start()
        return socket.create_connection(listening.getsockname()), got

    yield serve, Tls(f"{tmp_path}/authority.pem")
    for thread in threads:
        thread.join(patient(30))
        assert not thread.is_alive()


def read_all(one) -> bytes:
    data = b""
    while piece := one.recv(1 << 16):
        data += piece
    return data


def test_what_was_written_before_the_end_arrives(server):
    serve, tls = server
    sock, got = serve(read_all)
    with tls_relay.start(sock, tls, "localhost") as near:
        near.sendall(BIG)
    for thread in threading.enumerate():
        if thread.name in ("tls", "server"):
            thread.join(patient(30))
    assert got == [BIG]


def test_each_direction_has_an_end(server):
    def echo(one) -> bytes:
        data = read_all(one)
        one.sendall(data[::-1])
        return data

    serve, tls = server
    sock, got = serve(echo)
    with tls_relay.start(sock, tls, "localhost") as near:
        near.sendall(b"abc" + BIG)
        near.shutdown(socket.SHUT_WR)
        assert read_all(near) == BIG + b"cba"
    assert got == [b"abc" + BIG]


def test_strangers_and_files_that_are_none(tmp_path):
    (tmp_path / "nothing.pem").write_text("nothing")
    left, right = socket.socketpair()
    with right, pytest.raises(InvalidArgument, match="read the certificates"):
        tls_relay.start(left, Tls(f"{tmp_path}/nothing.pem"), "localhost")
    assert left.fileno() == -1
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        sock = socket.create_connection(deaf.getsockname())
        deaf.accept()[0].close()
        with pytest.raises(Unavailable, match="speak TLS with the daemon at localhost"):
            tls_relay.start(sock, Tls(), "localhost")
        assert sock.fileno() == -1
