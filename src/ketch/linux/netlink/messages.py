"""Netlink messages and attributes: encoding, decoding, and errors of requests (netlink(7)).

Imported by programs that have no time to lose: nothing here is heavier than `struct`.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP = 0x300
NLMSG_ERROR = 2
NLMSG_DONE = 3

_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_NLMSGERR_ATTR_MSG = 1
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")


class NetlinkRequest:
    """One message to the kernel; ``what`` says in an error what was tried; the errno ``tolerated`` is none."""

    __slots__ = ("body", "flags", "kind", "tolerated", "what")

    def __init__(self, kind: int, flags: int, body: bytes, what: str, tolerated: int = 0) -> None:
        self.kind = kind
        self.flags = flags
        self.body = body
        self.what = what
        self.tolerated = tolerated


def encode(request: NetlinkRequest, seq: int, flags: int) -> bytes:
    """A request as it is sent."""
    body = request.body + bytes(-len(request.body) % 4)
    return _HEADER.pack(_HEADER.size + len(body), request.kind, request.flags | flags, seq, 0) + body


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence number, body) of each message in what was received."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, seq, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, seq, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def raise_for(body: bytes, flags: int, request: NetlinkRequest) -> None:
    """Raise OSError for the body and flags of an NLMSG_ERROR, unless it says that the request was carried out."""
    code = -struct.unpack_from("=i", body)[0]
    if code in (0, request.tolerated):
        return
    detail = ""
    if flags & _NLM_F_ACK_TLVS:
        # Behind the error stands the request: its header only (capped), or all of it.
        length = _HEADER.size if flags & _NLM_F_CAPPED else struct.unpack_from("=I", body, 4)[0]
        text = attributes(body[4 + length :]).get(_NLMSGERR_ATTR_MSG, b"")
        detail = text.rstrip(b"\0").decode(errors="replace")
    reason = f"{request.what}: {os.strerror(code)}"
    raise OSError(code, f"{reason} ({detail})" if detail else reason)


def attr(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTR.pack(_ATTR.size + len(value), kind) + value + bytes(-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attr(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in the host's byte order."""
    return attr(kind, struct.pack("=I", value))


def u16(kind: int, value: int) -> bytes:
    """A 16-bit attribute in the host's byte order."""
    return attr(kind, struct.pack("=H", value))


def u8(kind: int, value: int) -> bytes:
    """An 8-bit attribute."""
    return attr(kind, struct.pack("=B", value))


def nest(kind: int, *children: bytes) -> bytes:
    """An attribute made of attributes."""
    return attr(kind | _NLA_F_NESTED, b"".join(children))


def attributes(data: bytes) -> Mapping[int, bytes]:
    """Type → value; of a repeated type the last one stays."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _ATTR.size <= len(data):
        length, kind = _ATTR.unpack_from(data, offset)
        if length < _ATTR.size:
            break
        found[kind & _NLA_TYPE_MASK] = data[offset + _ATTR.size : offset + length]
        offset += (length + 3) & ~3
    return found


def string(value: bytes | None) -> str:
    """An attribute that is text; empty when it is missing."""
    return (value or b"").rstrip(b"\0").decode(errors="replace")


def number(value: bytes | None) -> int:
    """An attribute of 32 bits; 0 when it is missing."""
    return int(struct.unpack("=I", value)[0]) if value else 0
