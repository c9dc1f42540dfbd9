"""A recording proxy: a unix socket before a daemon's own that keeps requests and answers."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from dataclasses import dataclass, field
from typing import Any

from tests.support.waiting import patient

_PIECE = 1 << 16
_BODILESS = (204, 304)


@dataclass
class Message:
    """One HTTP request or answer: the words of its first line, headers in lower case, the body as it was meant."""

    first: list[str]
    headers: dict[str, str]
    body: bytes
    whole: bool = True  # else the rest of the connection belongs to it, and is not HTTP


@dataclass
class Exchange:
    """A request and its answer."""

    method: str
    target: str
    status: int
    headers: dict[str, str]
    body: bytes
    request: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.method} {self.target} → {self.status}"


class Tap:
    """Listen on ``path``, pass everything to ``upstream``, remember it; ``exchanges`` when the clients are done."""

    def __init__(self, path: str, upstream: str) -> None:
        self.path = path
        self._upstream = upstream
        self._talks: list[_Talk] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._upstream)
            talk = _Talk(client, server)
            self._talks.append(talk)  # before anything is passed on: who has had an answer may look at once
            talk.begin()

    def asked(self) -> int:
        """How many bytes clients have sent so far."""
        return sum(len(talk.asked) for talk in list(self._talks))

    def exchanges(self) -> list[Exchange]:
        """Everything that was said so far, connection by connection."""
        return [exchange for talk in list(self._talks) for exchange in talk.exchanges()]

    def close(self) -> None:
        """Stop listening and cut what is still connected."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(patient(5))
        for talk in self._talks:
            talk.close()
        os.unlink(self.path)


@dataclass
class _Talk:
    """One connection: two threads copy, each keeps what it copied."""

    client: socket.socket
    server: socket.socket
    asked: bytearray = field(default_factory=bytearray)
    said: bytearray = field(default_factory=bytearray)
    threads: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> None:
        ways = ((self.client, self.server, self.asked), (self.server, self.client, self.said))
        self.threads += [threading.Thread(target=_copy, args=way, daemon=True) for way in ways]
        for thread in self.threads:
            thread.start()

    def exchanges(self) -> list[Exchange]:
        asked, said = bytes(self.asked), bytes(self.said)
        found = []
        while asked and said:
            request, asked = parse(asked, "")
            answer, said = parse(said, request.first[0])
            method, target = request.first[:2]
            found.append(Exchange(method, target, int(answer.first[1]), answer.headers, answer.body, request.body))
            if not answer.whole:
                break
        return found

    def close(self) -> None:
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(patient(5))
        self.client.close()
        self.server.close()


def _copy(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_PIECE):
            kept += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def parse(raw: bytes, asked: str) -> tuple[Message, bytes]:
    """The first message of a stream and what follows it; ``asked`` is the method that an answer belongs to."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    words = first.split(" ", 2)
    status = int(words[1]) if words[0].startswith("HTTP/") else 0
    if status == 101 or "raw-stream" in headers.get("content-type", "") and "transfer-encoding" not in headers:
        return Message(words, headers, rest, whole=False), b""
    if asked == "HEAD" or status in _BODILESS:
        return Message(words, headers, b""), rest
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body, rest, ended = _chunks(rest)
        return Message(words, headers, body, whole=ended), rest
    if "content-length" in headers:
        length = int(headers["content-length"])
        return Message(words, headers, rest[:length]), rest[length:]
    if status:
        return Message(words, headers, rest, whole=False), b""
    return Message(words, headers, b""), rest


def _chunks(raw: bytes) -> tuple[bytes, bytes, bool]:
    """RFC 9112, 7.1: (the body, what follows, whether its end was there)."""
    body = b""
    while b"\r\n" in raw:
        line, _, rest = raw.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        body += rest[:size]
        raw = rest[size + 2 :]
        if size == 0:
            return body, raw, True
    return body, b"", False
