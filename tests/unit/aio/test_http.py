"""Answers as they come from a socket: in pieces, too short, too early, never."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.aio.http import Answer, Http
from ketch.aio.streams import Stream
from ketch.aio.waiting import Blocking, after, finished
from ketch.errors import NotFound, Unavailable
from tests.support.waiting import patient


def read(answer: bytes, headers: dict[str, str], cuts: list[int] | None = None) -> tuple[bytes, Answer]:
    """The body in these bytes, of which the other end sends the given numbers at once."""
    here, there = socket.socketpair()
    with there:
        rest = answer
        for size in [*(cuts or []), len(answer)]:
            there.sendall(rest[:size])
            rest = rest[size:]
        there.shutdown(socket.SHUT_WR)
        found = Answer(Stream(here, Blocking()), 200, headers, b"")
        try:
            return finished(found.read(after(10))), found
        finally:
            found.stream.close()


@given(st.lists(st.binary(min_size=1, max_size=40)), st.lists(st.integers(1, 9)))
def test_chunked(pieces, cuts):
    sent = b"".join(b"%x;extension\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    body, answer = read(sent, {"transfer-encoding": "chunked"}, cuts)
    assert body == b"".join(pieces)
    assert answer.reusable


@given(st.binary(max_size=60), st.binary(max_size=5))
def test_with_a_length(body, more):
    """What comes behind it is no answer that was asked for: the connection is used no more."""
    found, answer = read(body + more, {"content-length": str(len(body))})
    assert found == body
    assert answer.reusable or more


@pytest.mark.parametrize(
    ("sent", "headers"),
    [
        (b"5\r\nabc", {"transfer-encoding": "chunked"}),
        (b"5\r\nabcde\r\n", {"transfer-encoding": "chunked"}),
        (b"xyz\r\nabc", {"transfer-encoding": "chunked"}),
        (b"abc", {"content-length": "5"}),
    ],
)
def test_broken_off(sent, headers):
    with pytest.raises(Unavailable, match="broke off"):
        read(sent, headers)


@contextlib.contextmanager
def server(tmp_path, *answers: bytes):
    """An engine that gives these answers, one a connection, and what it was asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    asked.append(connection.recv(1 << 16))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Http(f"unix://{tmp_path}/s", Blocking()), asked
        thread.join()


def test_a_connection_that_was_closed_is_not_used_again(tmp_path):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with server(tmp_path, answer, answer) as (http, asked):
        for _ in range(2):
            assert finished(http.json("GET", "/x", {"a": [1, "b c"], "left out": None})) == {}
        http.close()
    assert [request.split(b"\r\n")[0] for request in asked] == [b"GET /x?a=1&a=b%20c HTTP/1.1"] * 2


def test_errors(tmp_path):
    missing = b'HTTP/1.1 404 Not Found\r\nContent-Length: 22\r\n\r\n{"message": "not here"}'
    with server(tmp_path, missing.replace(b"22", b"23"), b"", b"HTTP/1.1 200 OK\r\n") as (http, _):
        with pytest.raises(NotFound, match="not here"):
            finished(http.request("GET", "/x"))
        for _ in range(2):
            with pytest.raises(Unavailable, match="without an answer"):
                finished(http.request("GET", "/x"))


def test_nobody_answers(tmp_path):
    """A deadline ends the wait."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        with pytest.raises(TimeoutError):
            finished(Http(f"unix://{tmp_path}/s", Blocking()).request("GET", "/x", deadline=after(0.05)))


def test_what_a_program_never_sees_is_closed_at_its_end(tmp_path):
    """The connections of an engine that it has not named: a strict program is not warned of them."""
    script = "import ketch; print(ketch.default().info())"
    words = [sys.executable, "-X", "dev", "-W", "error", "-c", script]
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as connections:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.settimeout(patient(20))
        environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/s"}
        program = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for head in ("101 Upgraded\r\nKetch-Session: one", "200 OK\r\nContent-Length: 2"):
            connection = connections.enter_context(listener.accept()[0])
            connection.recv(1 << 16)
            connection.sendall(f"HTTP/1.1 {head}\r\n\r\n{{}}".encode())
        assert program.communicate(timeout=patient(20)) == ("{}\n", "")
