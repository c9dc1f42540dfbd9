"""Servers for tests that stand in fluentd's and Graylog's place, and decode what they get."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

_LIMIT_S = patient(30)  # dockerd has been slow to start a container beside many tests


def unpack(stream: BinaryIO):
    """The next value, of the types that forwarders use; an extension is (type, content); EOFError at the end."""
    kind = _exactly(stream, 1)[0]
    if kind < 0x80:
        return kind
    if kind < 0x90:
        return {unpack(stream): unpack(stream) for _ in range(kind & 15)}
    if kind < 0xA0:
        return [unpack(stream) for _ in range(kind & 15)]
    if kind < 0xC0:
        return _exactly(stream, kind & 31).decode("utf-8", "backslashreplace")
    if kind in (0xD9, 0xDA, 0xDB):
        size = int.from_bytes(_exactly(stream, 1 << (kind - 0xD9)), "big")
        return _exactly(stream, size).decode("utf-8", "backslashreplace")
    if kind in (0xCE, 0xCF, 0xD2, 0xD3):
        return int.from_bytes(_exactly(stream, 4 if kind in (0xCE, 0xD2) else 8), "big")
    if kind == 0xDE:
        return {unpack(stream): unpack(stream) for _ in range(int.from_bytes(_exactly(stream, 2), "big"))}
    assert kind == 0xD7, hex(kind)
    return _exactly(stream, 1)[0], _exactly(stream, 8)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


@contextmanager
def _in_background(receive: Callable[[], list], listener: socket.socket) -> Iterator[list]:
    """Receive while the block runs, for senders that wait for their server; the result is in the list afterwards.

    A server that fails stops listening: its sender is told so, and does not wait for ever.  What it failed with is
    raised in place of the error that the sender makes of it.
    """
    found: list = []

    def received() -> list:
        try:
            return receive()
        except BaseException:
            listener.close()
            raise

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(received)
        try:
            yield found
        finally:
            if result.done():
                result.result()
        found += result.result()


class Forward:
    """Accepts one connection after the other, like fluentd's forward input; ``port`` 0 is any free one."""

    def __init__(self, port: int = 0, path: str = "", *, acks: bool = False) -> None:
        self._acks = acks
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(path or ("127.0.0.1", port))
        self._listener.listen()
        self._listener.settimeout(_LIMIT_S)
        self.port = 0 if path else int(self._listener.getsockname()[1])

    @contextmanager
    def collecting(self, *texts: str) -> Iterator[list]:
        """A list that has, after the block, the messages [tag, time, record, option] until each of these has come.

        Give the last text of each of the container's streams: a sender may fall behind with one of them, and waits
        without a limit for the confirmation of what nobody reads.
        """
        wanted = set(texts)
        with _in_background(
            lambda: self._until(lambda found: wanted <= {one[2]["log"] for one in found}), self._listener
        ) as found:
            yield found

    def some(self, count: int) -> list[list]:
        """So many messages; the connection ends then."""
        return self._until(lambda found: len(found) == count)

    def _until(self, enough: Callable[[list], bool]) -> list[list]:
        found: list[list] = []
        while not enough(found):
            connection, _ = self._listener.accept()
            connection.settimeout(_LIMIT_S)
            # A connection without a message is an attempt whether somebody listens.
            with connection, connection.makefile("rb") as stream, suppress(EOFError, ConnectionError):
                while not enough(found):
                    found.append(unpack(stream))
                    if self._acks:
                        ident = found[-1][3]["chunk"].encode()
                        connection.sendall(b"\x81\xa3ack" + bytes((0xA0 | len(ident),)) + ident)
        return found

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


class Graylog:
    """Receives GELF over UDP, or over TCP, and puts chunks together."""

    def __init__(self, *, tcp: bool = False) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(_LIMIT_S)
        if tcp:
            self.sock.listen()
        self._tcp = tcp
        self.port = int(self.sock.getsockname()[1])
        self.beginnings: set[bytes] = set()  # of messages as they came: their compression
        self.chunked = 0

    @contextmanager
    def collecting(self, *texts: str) -> Iterator[list]:
        """A list that has, after the block, the messages until each of these has come."""
        with _in_background(lambda: self._until(set(texts)), self.sock) as found:
            yield found

    def _until(self, texts: set[str]) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        while not texts <= {str(one["short_message"]) for one in found}:
            found += self._connection() if self._tcp else [json.loads(self._unpacked(self._whole()))]
        return found

    def _connection(self) -> list[dict[str, object]]:
        connection, _ = self.sock.accept()
        connection.settimeout(_LIMIT_S)
        with connection, connection.makefile("rb") as stream:
            return [json.loads(one) for one in stream.read().split(b"\0") if one]

    def _whole(self) -> bytes:
        chunks: dict[bytes, dict[int, bytes]] = {}
        while True:
            data = self.sock.recv(1 << 16)
            if not data.startswith(b"\x1e\x0f"):
                return data
            self.chunked += 1
            assert len(data) <= 1420
            parts = chunks.setdefault(data[2:10], {})
            parts[data[10]] = data[12:]
            if len(parts) == data[11]:
                return b"".join(parts[number] for number in range(len(parts)))

    def _unpacked(self, data: bytes) -> bytes:
        self.beginnings.add(data[:1])
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        return zlib.decompress(data) if data.startswith(b"\x78") else data

    def close(self) -> None:
        """Stop listening."""
        self.sock.close()
