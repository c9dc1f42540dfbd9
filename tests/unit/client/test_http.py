"""The small HTTP client, against a server that is nothing but a socket."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from ketch.client.http import Client
from ketch.errors import InvalidArgument, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
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


def _headers_of(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1 << 16)
    return data


def _uploaded(tmp_path: Path, serve: Callable[[socket.socket], None], body: Iterable[bytes]) -> list[object]:
    """The answer's lines to an upload that ``serve`` gets."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(20)
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

        server = threading.Thread(target=accept)
        server.start()
        try:
            return list(Client(f"unix://{tmp_path}/s").upload("POST", "/x", body).stream_lines())
        finally:
            server.join()


def test_an_answer_comes_while_the_body_is_sent(tmp_path: Path) -> None:
    """Neither side waits for the other: the answer is more than a socket holds, and so is the body."""
    line = b'{"a":"' + b"x" * 1000 + b'"}\n'

    def serve(connection: socket.socket) -> None:
        _headers_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + line * 2000)
        while not connection.recv(1 << 16).endswith(b"0\r\n\r\n"):
            pass

    assert len(_uploaded(tmp_path, serve, (bytes(1 << 16) for _ in range(64)))) == 2000


def test_a_refusal_before_the_body_was_read(tmp_path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        _headers_of(connection)
        connection.sendall(b'HTTP/1.1 403 No\r\nContent-Length: 22\r\n\r\n{"message": "not you"}')

    with pytest.raises(PermissionDenied, match="not you"):
        _uploaded(tmp_path, serve, (bytes(1 << 16) for _ in range(64)))


def test_a_body_that_cannot_be_read(tmp_path: Path) -> None:
    """Its error is what the caller gets, before the answer begins and after."""

    answered = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"one"
        assert answered.wait(20)
        raise InvalidArgument("the file is gone")

    def silent(connection: socket.socket) -> None:
        answered.set()
        while connection.recv(1 << 16):
            pass

    def answering(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n{}\n")
        silent(connection)

    for number, serve in enumerate((silent, answering)):
        answered = threading.Event()
        (tmp_path / str(number)).mkdir()
        with pytest.raises(InvalidArgument, match="the file is gone"):
            _uploaded(tmp_path / str(number), serve, body())
