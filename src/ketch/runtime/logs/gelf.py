"""Messages for Graylog in its Extended Log Format, GELF 1.1: JSON objects over UDP (compressed, in chunks) or TCP.

Over UDP a message that is longer than 1420 bytes is sent as at most 128 chunks: ``1e 0f``, an id of eight bytes,
the chunk's number and their count, and 1408 bytes.  Over TCP each message ends with a zero byte.
"""

from __future__ import annotations

import os
import zlib
from errno import EMSGSIZE

from ketch.runtime.logs import destination
from ketch.runtime.logs.destination import Destination, Pieces
from ketch.runtime.logs.json_log import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from ketch.runtime.protocol import GelfLog

_LEVELS = {1: 6, 2: 3}  # info, err
_WINDOW_BITS = {"gzip": 31, "zlib": 15}
_CHUNK, _MOST_CHUNKS = 1420 - 12, 128


class Gelf(Destination):
    """Messages of one container."""

    def __init__(self, log: GelfLog) -> None:
        self._address = log["address"]
        self._stream = log["address"][0] == "tcp"
        self.largest = Destination.largest if self._stream else _CHUNK + 12
        self.retry_s, self.retries = log["retry_ms"] / 1000, log["retries"]
        self._window_bits = 0 if self._stream else _WINDOW_BITS.get(log["compression"], 0)
        self._level = log["level"]
        self._head = b'{"version":"1.1","host":"%s","short_message":"' % escape(os.fsencode(os.uname().nodename))
        self._fields = log["fields"].encode("utf-8", "surrogateescape")
        self._pieces = Pieces()
        self._chunks: list[bytes] = []

    def connect(self) -> tuple[socket, int]:
        """A socket to the server, 0 or EINPROGRESS (OSError)."""
        return destination.connect(self._address)

    def message(self, ns: int, stream: int, line: bytes, partial: bool) -> bytes:
        """A line as it is sent; an empty one is not."""
        first, _, _ = self._pieces.next(ns, stream, partial)
        if not line:  # the format wants a text; dockerd does not send empty lines either
            return b""
        second, ms = divmod(first // 10**6, 1000)
        tail = b'","timestamp":%d.%03d,"level":%d,%s}' % (second, ms, _LEVELS[stream], self._fields)
        whole = b"".join((self._head, escape(line), tail))
        self._chunks = []
        if self._stream:
            return whole + b"\0"
        if not self._window_bits:
            return whole
        packer = zlib.compressobj(self._level, zlib.DEFLATED, self._window_bits)
        return packer.compress(whole) + packer.flush()

    def send_large(self, sock: socket, message: bytes) -> None:
        """Send a message in chunks; when the socket is full, the next call goes on where this one stopped (OSError)."""
        if not self._chunks:
            count = len(message) // _CHUNK + 1
            if count > _MOST_CHUNKS:
                raise OSError(EMSGSIZE, os.strerror(EMSGSIZE))
            ident = os.urandom(8)
            self._chunks = [
                b"\x1e\x0f%s%c%c%s" % (ident, number, count, message[number * _CHUNK : (number + 1) * _CHUNK])
                for number in range(count)
            ]
        while self._chunks:
            sock.send(self._chunks[0])
            del self._chunks[0]
