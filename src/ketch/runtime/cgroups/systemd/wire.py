"""D-Bus messages as bytes (D-Bus specification 0.42, "Message Protocol"), as far as systemd's interface needs them.

A library would cost more to import than a container's whole start takes.  Values are Python's own: numbers, texts,
bytes for ``ay``, lists for arrays (of pairs for dictionaries), tuples for structures, and for a variant the pair
(signature, value).  Messages are little-endian as they leave; both orders are read.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CALL, REPLY, ERROR, SIGNAL = 1, 2, 3, 4
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SENDER, SIGNATURE = range(1, 9)
HEAD = 16  # of every message: from it `length` tells the rest
_FIELD_TYPES = {PATH: "o", INTERFACE: "s", MEMBER: "s", DESTINATION: "s", SIGNATURE: "g"}
_MAX_MESSAGE = 1 << 24  # the specification allows 128 MiB; systemd's answers are a few hundred bytes
_MAX_DEPTH = 64
_FORMATS = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "h": "I"}
_ALIGNMENTS = {"s": 4, "o": 4, "g": 1, "a": 4, "(": 8, "{": 8, "v": 1}
_CLOSING = {"(": ")", "{": "}"}


class BusMessage:
    """A message that was read: its type, its header's fields by number, its body's values."""

    __slots__ = ("body", "fields", "kind", "serial")

    def __init__(self, kind: int, serial: int, fields: dict[int, Any], body: list[Any]) -> None:
        self.kind = kind
        self.serial = serial
        self.fields = fields
        self.body = body


def call(serial: int, fields: dict[int, str], signature: str, values: list[Any]) -> bytes:
    """A method call with the body ``values``; ``fields``: PATH, INTERFACE, MEMBER, DESTINATION."""
    body = _Writer()
    for kind, value in zip(split(signature), values, strict=True):
        body.write(kind, value)
    if signature:
        fields = {**fields, SIGNATURE: signature}
    head = _Writer()
    head.data += struct.pack("<BBBBII", ord("l"), CALL, 0, 1, len(body.data), serial)
    head.write("a(yv)", [(number, (_FIELD_TYPES[number], value)) for number, value in fields.items()])
    head.align(8)
    return bytes(head.data + body.data)


def length(head: bytes) -> int:
    """The length of the message that begins with these HEAD bytes; ValueError: this is none."""
    order = _order(head)
    body, _, fields = struct.unpack_from(order + "III", head, 4)
    whole = HEAD + (fields + 7) // 8 * 8 + body
    if head[3] != 1 or whole > _MAX_MESSAGE:
        raise ValueError("not a D-Bus message, or one that is too long")
    return int(whole)


def parse(data: bytes) -> BusMessage:
    """The message ``data``, which is `length` bytes long; ValueError: it is not one."""
    order = _order(data)
    reader = _Reader(data, order)
    reader.at = 4
    body_length, serial = reader.read("u"), reader.read("u")
    fields = {number: variant[1] for number, variant in reader.read("a(yv)")}
    reader.align(8)
    if reader.at + body_length != len(data):
        raise ValueError("a D-Bus message of another length than it says")
    body = _Reader(data[reader.at :], order)
    values = [body.read(kind) for kind in split(_signature(fields))]
    if body.at != body_length:
        raise ValueError("a D-Bus message whose body is longer than its signature")
    return BusMessage(data[1], serial, fields, values)


def split(signature: str) -> list[str]:
    """The single complete types of a signature; ValueError: it is none."""
    found = []
    at = 0
    while at < len(signature):
        end = _end(signature, at, 0)
        found.append(signature[at:end])
        at = end
    return found


def _end(signature: str, at: int, depth: int) -> int:
    """The end of the type that begins at ``at``."""
    if at >= len(signature) or depth > _MAX_DEPTH:
        raise ValueError(f"not a D-Bus signature: {signature!r}")
    kind = signature[at]
    if kind == "a":
        return _end(signature, at + 1, depth + 1)
    if kind in _CLOSING:
        at += 1
        first = at
        while at < len(signature) and signature[at] != _CLOSING[kind]:
            at = _end(signature, at, depth + 1)
        if at >= len(signature) or at == first:
            raise ValueError(f"not a D-Bus signature: {signature!r}")
        return at + 1
    if kind not in _FORMATS and kind not in "sogv":
        raise ValueError(f"not a D-Bus signature: {signature!r}")
    return at + 1


def _order(data: bytes) -> str:
    if len(data) < HEAD or data[0] not in b"lB":
        raise ValueError("not a D-Bus message")
    return "<" if data[0] == ord("l") else ">"


def _signature(fields: dict[int, Any]) -> str:
    signature = fields.get(SIGNATURE, "")
    if not isinstance(signature, str):
        raise ValueError("a D-Bus message whose signature is no text")
    return signature


def _alignment(kind: str) -> int:
    return _ALIGNMENTS.get(kind[0]) or struct.calcsize(_FORMATS[kind[0]])


class _Writer:
    """Values, each aligned to its type's size from the beginning."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int) -> None:
        self.data += bytes(-len(self.data) % size)

    def write(self, kind: str, value: Any) -> None:
        self.align(_alignment(kind))
        if kind in _FORMATS:
            self.data += struct.pack("<" + _FORMATS[kind], value)
        elif kind in ("s", "o"):
            text = value.encode()
            self.data += struct.pack("<I", len(text)) + text + b"\0"
        elif kind == "g":
            self.data += bytes((len(value),)) + value.encode() + b"\0"
        elif kind == "v":
            self.write("g", value[0])
            self.write(value[0], value[1])
        elif kind[0] == "a":
            self._write_array(kind[1:], value)
        else:
            for member, item in zip(split(kind[1:-1]), value, strict=True):
                self.write(member, item)

    def _write_array(self, element: str, value: Any) -> None:
        start = len(self.data)
        self.data += bytes(4)
        self.align(_alignment(element))
        first = len(self.data)
        if element == "y":
            self.data += value
        else:
            for item in value:
                self.write(element, item)
        struct.pack_into("<I", self.data, start, len(self.data) - first)


class _Reader:
    """The same backwards; whatever does not fit is a ValueError."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data = data
        self.at = 0
        self._order = order
        self._depth = 0

    def align(self, size: int) -> None:
        self.at += -self.at % size

    def read(self, kind: str) -> Any:
        self.align(_alignment(kind))
        if kind in _FORMATS:
            found = struct.unpack(self._order + _FORMATS[kind], self._take(struct.calcsize(_FORMATS[kind])))[0]
            return bool(found) if kind == "b" else found
        if kind in ("s", "o"):
            return self._text(self.read("u"))
        if kind == "g":
            return self._text(self.read("y"))
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError("a D-Bus message that is nested too deep")
        if kind == "v":
            found = self._variant()
        elif kind[0] == "a":
            found = self._array(kind[1:])
        else:
            found = tuple(self.read(member) for member in split(kind[1:-1]))
        self._depth -= 1
        return found

    def _variant(self) -> tuple[str, Any]:
        signature = self.read("g")
        if len(split(signature)) != 1:
            raise ValueError("a D-Bus variant that is not of one type")
        return signature, self.read(signature)

    def _array(self, element: str) -> Any:
        size = self.read("u")
        self.align(_alignment(element))
        if element == "y":
            return self._take(size)
        end, found = self.at + size, []
        if end > len(self.data):
            raise ValueError("a D-Bus message that is cut short")
        while self.at < end:
            found.append(self.read(element))
        if self.at != end:
            raise ValueError("a D-Bus array of another length than it says")
        return found

    def _take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise ValueError("a D-Bus message that is cut short")
        data = self.data[self.at : end]
        self.at = end
        return data

    def _text(self, size: int) -> str:
        return self._take(size + 1)[:-1].decode()
