"""The small HTTP client, against a server that is nothing but a socket."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

import pytest

import ketch
from ketch.aio.http import Http
from ketch.aio.waiting import Blocking, finished
from ketch.client.http import Client, request_head
from ketch.errors import InvalidArgument, PermissionDenied, Unavailable
from tests.support.waiting import patient

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
        listener.settimeout(patient(20))
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        connections: list[int] = []
        closed = threading.Event()
        server = threading.Thread(target=_serve, args=(listener, connections, closed, 2))
        server.start()
        client = Client(f"unix://{tmp_path}/s")
        try:
            assert client.request(method, "/one").json() == {}
            assert closed.wait(patient(20))
            assert client.request(method, "/two").json() == {}
        finally:
            server.join()
    assert len(connections) == 2
    assert all(connections)


def _asynchronous(url: str) -> Callable[[str, str], bytes]:
    http = Http(url, Blocking())
    return lambda method, path: finished(http.request(method, path))


def _close_after_the_second(listener: socket.socket, asked: list[bytes], *, goes_on: bool) -> None:
    """Answer a request, read the next one of the connection, and close it; perhaps one more connection is answered."""
    with listener.accept()[0] as first:
        asked.append(first.recv(1 << 16))
        first.sendall(ANSWER)
        asked.append(first.recv(1 << 16))
    if not goes_on:
        return
    with listener.accept()[0] as second:
        asked.append(second.recv(1 << 16))
        second.sendall(ANSWER)


@pytest.mark.parametrize("client", [lambda url: Client(url).request, _asynchronous], ids=["plain", "asynchronous"])
@pytest.mark.parametrize(("method", "repeated"), [("GET", True), ("POST", False)])
def test_a_connection_that_is_closed_while_a_request_is_on_its_way(
    tmp_path: Path, client: Callable[[str], Callable[[str, str], object]], method: str, repeated: bool
) -> None:
    """What changes nothing is asked again on a new connection; anything else may have been done already."""
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as threads:
        listener.settimeout(patient(20))
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        asked: list[bytes] = []
        server = threads.submit(_close_after_the_second, listener, asked, goes_on=repeated)
        request = client(f"unix://{tmp_path}/s")
        request(method, "/one")
        with nullcontext() if repeated else pytest.raises(Unavailable, match="without an answer"):
            request(method, "/two")
        server.result(patient(20))
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody asks once more
            listener.accept()
    assert [one.split()[1] for one in asked] == [b"/one", b"/two", b"/two"][: 3 if repeated else 2]


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",  # and it waits for more
        b"garbage\r\n\r\n",
        b"HTTP/1.1 xyz\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 16_000,  # more than is read, and less than the socket holds
    ],
)
@pytest.mark.parametrize("ask", [lambda url: Client(url).request("GET", "/"), lambda url: ketch.connect(url).info()])
def test_what_is_no_daemon(tmp_path: Path, said: bytes, ask: Callable[[str], object]) -> None:
    """An address that leads to something else: a sentence, at once."""
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as threads:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        answer = threads.submit(ask, f"unix://{tmp_path}/s")
        connection, _ = listener.accept()
        with connection, suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(said)
            with pytest.raises(Unavailable, match="not HTTP"):
                answer.result(patient(20))
        with pytest.raises(Unavailable, match="not HTTP"):
            answer.result(patient(20))


def _headers_of(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1 << 16)
    return data


def _uploaded(tmp_path: Path, serve: Callable[[socket.socket], None], body: Iterable[bytes]) -> list[object]:
    """The answer's lines to an upload that ``serve`` gets."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(patient(20))
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
        assert answered.wait(patient(20))
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


def test_a_connection_that_is_reset_within_an_answer(tmp_path: Path) -> None:
    """Data that the other end has not read makes its closing a reset."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123")

        server = threading.Thread(target=serve)
        server.start()
        response = Client(f"unix://{tmp_path}/s").request("GET", "/one", stream=True)
        server.join()
        with pytest.raises(Unavailable, match="broke off: Connection reset"):
            response.read()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/containers//json"),  # without a name it is the path of all containers
        ("GET", "/containers///json"),
        ("POST", "/containers//start"),
        ("GET", "/images//json"),
        ("DELETE", "/containers/"),
        ("DELETE", "/containers//"),
        ("GET", "/volumes/"),
        ("POST", "/networks//connect"),
        ("GET", "/ketch/volumes//archive"),
        ("DELETE", "/ketch/builds/"),
    ],
)
def test_an_empty_name(method: str, path: str) -> None:
    with pytest.raises(InvalidArgument, match="value is empty"):
        request_head(method, path, None, {})


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("GET", "/containers//up/json", "/containers/up/json"),
        ("GET", "/containers//json/json", "/containers/json/json"),
        ("DELETE", "/containers//up", "/containers/up"),
        ("GET", "/volumes//up", "/volumes/up"),
        ("DELETE", "/containers/up/", "/containers/up"),
        ("POST", "/containers/up//start", "/containers/up/start"),
        ("GET", "/images/a/b//json", "/images/a/b/json"),
        ("GET", "/networks/x/", "/networks/x"),
        ("GET", "/", "/"),
    ],
)
def test_a_name_that_begins_with_a_slash(method: str, path: str, sent: str) -> None:
    assert request_head(method, path, None, {}).split()[1].decode() == sent


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n<html/>\n", "not JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\xff", "not JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[]", "broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n", "broke off"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[", "not JSON"),
    ],
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda url: Client(url).request("GET", "/").json(),
        lambda url: list(Client(url).request("GET", "/", stream=True).stream_lines()),
        lambda url: finished(Http(url, Blocking()).json("GET", "/")),
    ],
)
def test_answers_that_are_not_whole(tmp_path: Path, said: bytes, why: str, ask: Callable[[str], object]) -> None:
    """No part of an answer passes for all of it, and what is no JSON is told in a sentence."""
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as threads:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        answer = threads.submit(ask, f"unix://{tmp_path}/s")
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(said)
        with pytest.raises(Unavailable, match=why):
            answer.result(patient(20))
