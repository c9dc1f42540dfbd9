"""Messages for fluentd and Fluent Bit in the forward protocol (its specification, version 1: "message mode").

A message is a MessagePack array ``[tag, time, record, option]``.  The time is in seconds, or an EventTime with
nanoseconds; ``option`` is empty, or has the id of a chunk that the server confirms with ``{"ack": id}``.
"""

from __future__ import annotations

import os
from binascii import b2a_base64
from struct import pack

from ketch.runtime.logs import destination
from ketch.runtime.logs.destination import Destination, Pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from ketch.runtime.protocol import FluentdLog

_SOURCES = {1: b"stdout", 2: b"stderr"}
_LARGEST_ANSWER = 256


def text(data: bytes) -> bytes:
    """A string; Docker sends output as such, too, of whatever bytes it is."""
    size = len(data)
    if size < 32:
        return bytes((0xA0 | size,)) + data
    if size < 1 << 8:
        return pack(">BB", 0xD9, size) + data
    return pack(">BH", 0xDA, size) + data if size < 1 << 16 else pack(">BI", 0xDB, size) + data


def _map_head(size: int) -> bytes:
    return bytes((0x80 | size,)) if size < 16 else pack(">BH", 0xDE, size)


def _time(ns: int, precise: bool) -> bytes:
    second, rest = divmod(ns, 10**9)
    if precise:
        return pack(">BBII", 0xD7, 0, second & 0xFFFFFFFF, rest)
    return pack(">Bi", 0xD2, second) if second < 1 << 31 else pack(">Bq", 0xD3, second)


def _pairs(values: dict[str, str]) -> bytes:
    encoded = (text(one.encode("utf-8", "surrogateescape")) for pair in values.items() for one in pair)
    return b"".join(encoded)


class Fluentd(Destination):
    """Messages of one container; ``fields`` of the settings stand in each record."""

    def __init__(self, log: FluentdLog) -> None:
        self._address = log["address"]
        self._timeout_ms = log["timeout_ms"]
        self._precise = log["precise"]
        self.acknowledges = log["acks"]
        self.retry_s, self.retries = log["retry_ms"] / 1000, log["retries"]
        self._head = b"\x94" + text(log["tag"].encode("utf-8", "surrogateescape"))
        # A chosen label or variable of the same name takes the place of Docker's own field.
        self._has_source, self._has_log = "source" not in log["fields"], "log" not in log["fields"]
        self._size = len(log["fields"]) + self._has_source + self._has_log
        self._fields = _pairs(log["fields"])
        self._pieces = Pieces()
        self._chunk = b""

    def connect(self) -> tuple[socket, int]:
        """A socket to the server, 0 or EINPROGRESS (OSError)."""
        return destination.connect(self._address, self._timeout_ms)

    def message(self, ns: int, stream: int, line: bytes, partial: bool) -> bytes:
        """A line as it is sent."""
        first, ident, number = self._pieces.next(ns, stream, partial)
        parts = [self._head, _time(first, self._precise), _map_head(self._size + (4 if ident else 0)), self._fields]
        if self._has_source:
            parts.append(b"\xa6source" + text(_SOURCES[stream]))
        if self._has_log:
            parts.append(b"\xa3log" + text(line))
        if ident:
            last = "false" if partial else "true"
            parts.append(
                _pairs(
                    {
                        "partial_message": "true",
                        "partial_id": ident,
                        "partial_ordinal": str(number),
                        "partial_last": last,
                    }
                )
            )
        parts.append(self._option(first))
        return b"".join(parts)

    def _option(self, ns: int) -> bytes:
        if not self.acknowledges:
            return b"\x80"
        self._chunk = b2a_base64(pack("<q", ns // 10**9) + os.urandom(8), newline=False)
        return b"\x81\xa5chunk" + text(self._chunk)

    def acknowledged(self, data: bytes) -> bool | None:
        """Whether the server has confirmed the last message; None while its answer is incomplete."""
        if self._chunk in data:
            return True
        whole = len(data) >= len(self._chunk) + len(b"\x81\xa3ack\xb8")
        return False if whole or len(data) > _LARGEST_ANSWER else None
