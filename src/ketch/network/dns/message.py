"""DNS messages (RFC 1035, EDNS0: RFC 6891): as much of the format as a resolver for containers needs.

    header  id flags qdcount ancount nscount arcount     12 bytes
    question  labels… 0 type class                       one in practice
    records   name type class ttl length data

Names are text in lower case without the final dot; a byte that is no printable ASCII makes a name that nobody has.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

A, PTR, AAAA, OPT = 1, 12, 28, 41
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP = 0, 1, 2, 3, 4
QUERY = 0
MAX_UDP = 512
MAX_EDNS = 4096
TTL_S = 600

_HEADER = struct.Struct("!HHHHHH")
_QUESTION_END = struct.Struct("!HH")
_RECORD = struct.Struct("!HHHIH")
_QR, _TC, _RD, _RA = 0x8000, 0x0200, 0x0100, 0x0080
_IN = 1
_POINTER_TO_QUESTION = 0xC00C
_MAX_NAME, _MAX_LABEL = 255, 63


class Malformed(ValueError):
    """An invalid query; ``answerable`` when at least the header could be read."""

    def __init__(self, why: str, *, answerable: bool = False) -> None:
        super().__init__(why)
        self.answerable = answerable


class Query(NamedTuple):
    """One question; ``end`` is the offset behind it, ``room`` how many bytes an answer by UDP may have."""

    id: int
    flags: int
    name: str
    kind: int
    klass: int
    end: int
    room: int

    @property
    def opcode(self) -> int:
        return (self.flags >> 11) & 0xF


def parse(data: bytes) -> Query:
    """Parse a query (Malformed)."""
    if len(data) < _HEADER.size:
        raise Malformed("shorter than a header")
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _QR:
        raise Malformed("an answer")
    if questions != 1 or answers or authorities:
        raise Malformed("not exactly one question", answerable=True)
    name, offset = read_name(data, _HEADER.size)
    if offset + _QUESTION_END.size > len(data):
        raise Malformed("the question is cut off", answerable=True)
    kind, klass = _QUESTION_END.unpack_from(data, offset)
    end = offset + _QUESTION_END.size
    return Query(number, flags, name, kind, klass, end, _room(data, end) if additional else MAX_UDP)


def _room(data: bytes, offset: int) -> int:
    """The sender's maximum size, from an OPT record directly after the question."""
    if len(data) >= offset + 11 and data[offset] == 0:
        kind, size = struct.unpack_from("!HH", data, offset + 1)
        if kind == OPT:
            return int(min(max(size, MAX_UDP), MAX_EDNS))
    return MAX_UDP


def read_name(data: bytes, offset: int) -> tuple[str, int]:
    """The name at ``offset`` and the offset behind it; compressed names do not occur in questions (Malformed)."""
    labels = []
    start = offset
    while True:
        if offset >= len(data):
            raise Malformed("a name is cut off", answerable=True)
        length = data[offset]
        offset += 1
        if length == 0:
            break
        if length > _MAX_LABEL or offset - start + length > _MAX_NAME:
            raise Malformed("a name or label is too long", answerable=True)
        if offset + length > len(data):
            raise Malformed("a label is cut off", answerable=True)
        labels.append(data[offset : offset + length])
        offset += length
    return b".".join(labels).decode("ascii", "replace").lower(), offset


def write_name(name: str) -> bytes:
    """Labels of a name (Malformed when it is too long)."""
    encoded = b""
    for label in name.encode("ascii", "replace").split(b".") if name else ():
        if not 0 < len(label) <= _MAX_LABEL:
            raise Malformed(f"no name: {name!r}")
        encoded += bytes([len(label)]) + label
    if len(encoded) >= _MAX_NAME:
        raise Malformed(f"too long: {name!r}")
    return encoded + b"\0"


def answer(data: bytes, query: Query, records: list[bytes], *, code: int = NOERROR, room: int | None = None) -> bytes:
    """The answer to ``data``; ``records`` are `address` or `pointer`.

    Records that do not fit into ``room`` bytes (None: any size) are left out and the answer is marked as truncated.
    """
    question = data[_HEADER.size : query.end]
    flags = _QR | _RA | (query.flags & (_RD | 0x7800)) | code
    size = query.end
    chosen = records
    if room is not None and size + sum(map(len, records)) > room:
        flags |= _TC
        chosen = []
        for record in records:
            size += len(record)
            if size > room:
                break
            chosen.append(record)
    return _HEADER.pack(query.id, flags, 1, len(chosen), 0, 0) + question + b"".join(chosen)


def failure(data: bytes, code: int) -> bytes:
    """An answer without a question to a query that could not be read further than its header."""
    number, flags = struct.unpack_from("!HH", data)
    return _HEADER.pack(number, _QR | _RA | (flags & (_RD | 0x7800)) | code, 0, 0, 0, 0)


def address(text: str) -> bytes:
    """An A or AAAA record for the question's name."""
    packed = ipaddress.ip_address(text).packed
    kind = A if len(packed) == 4 else AAAA
    return _RECORD.pack(_POINTER_TO_QUESTION, kind, _IN, TTL_S, len(packed)) + packed


def pointer(name: str) -> bytes:
    """A PTR record for the question's address."""
    encoded = write_name(name)
    return _RECORD.pack(_POINTER_TO_QUESTION, PTR, _IN, TTL_S, len(encoded)) + encoded


def reverse_address(name: str) -> str | None:
    """``2.0.28.172.in-addr.arpa`` or ``….ip6.arpa`` → the address; None for other names."""
    if name.endswith(".in-addr.arpa"):
        parts = name[: -len(".in-addr.arpa")].split(".")
        text = ".".join(reversed(parts))
    elif name.endswith(".ip6.arpa"):
        digits = name[: -len(".ip6.arpa")].split(".")
        if len(digits) != 32 or any(len(d) != 1 for d in digits):
            return None
        whole = "".join(reversed(digits))
        text = ":".join(whole[i : i + 4] for i in range(0, 32, 4))
    else:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def answers(data: bytes, query: bytes, end: int, number: int) -> bool:
    """Whether ``data`` answers ``query`` (whose question ends at ``end``), sent with the id ``number``.

    Case counts for nothing in a name; servers that fail may leave the question out.
    """
    if len(data) < _HEADER.size:
        return False
    got, flags, questions, *_ = _HEADER.unpack_from(data)
    if got != number or not flags & _QR:
        return False
    return questions == 0 or data[_HEADER.size : end].lower() == query[_HEADER.size : end].lower()


def with_id(data: bytes, number: int) -> bytes:
    """The same message under another id."""
    return struct.pack("!H", number) + data[2:]
