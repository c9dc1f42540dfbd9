"""The small HTTP client, against a server that is nothing but a socket."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from ketch.client.http import Client

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def _serve(listener: socket.socket, connections: list[int], closed: threading.Event, requests: int) -> None:
    """Answer so many requests and close the connection after each one, although nobody was told."""
    for _ in range(requests):
        connection, _ = listener.accept()
        with connection:
            connections.append(len(connection.recv(1 << 16)))
            connection.sendall(ANSWER)
        closed.set()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_idle_connection_that_the_daemon_closed_is_not_used(tmp_path: Path, method: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(20)
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        connections: list[int] = []
        closed = threading.Event()
        server = threading.Thread(target=_serve, args=(listener, connections, closed, 2))
        server.start()
        client = Client(f"unix://{tmp_path}/s")
        try:
            assert client.request(method, "/one").json() == {}
            assert closed.wait(20)
            assert client.request(method, "/two").json() == {}
        finally:
            server.join()
    assert len(connections) == 2
    assert all(connections)
