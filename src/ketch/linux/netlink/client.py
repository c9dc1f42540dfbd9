"""A small netlink(7) client: messages, attributes, acknowledged batches and dumps.

The kernel works through a batch inside ``sendmsg``, so all answers are waiting when it returns: nothing here
ever blocks for long, and several requests cost one round trip.  A general netlink library would take more time
to import than a whole container takes to start.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple

from ketch.linux import ns

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")
    from collections.abc import Iterator, Mapping, Sequence

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP = 0x300
NLMSG_ERROR = 2
NLMSG_DONE = 3

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_NLMSGERR_ATTR_MSG = 1
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 16
_NLM_F_DUMP_INTR = 0x10
_DUMP_ATTEMPTS = 5


class Request(NamedTuple):
    """One message to the kernel; ``what`` says in an error what was tried; the errno ``tolerated`` is none."""

    kind: int
    flags: int
    body: bytes
    what: str
    tolerated: int = 0


class Netlink:
    """One socket; not thread-safe.  ``fd`` (of a netlink socket, maybe of another namespace) is duplicated.

    Without ``fd`` the socket belongs to the calling thread's network namespace.  ``close`` is the caller's.
    """

    def __init__(self, fd: int | None = None, protocol: int = NETLINK_ROUTE) -> None:
        if fd is None:
            self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        else:
            self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol, fileno=os.dup(fd))
        self._sock.setblocking(True)
        self._sock.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._sock.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._seq = 0

    def fileno(self) -> int:
        """The socket's descriptor, for those who pass it on."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close this duplicate of the socket."""
        self._sock.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, requests: Sequence[Request]) -> None:
        """Send all in one batch; raise OSError for the first that failed (the kernel tries the others all the same)."""
        if requests:
            self._transact(requests)

    def get(self, request: Request) -> bytes | None:
        """The body of the one object asked for; None when the kernel answers nothing but "done"."""
        bodies = self._transact([request])
        return bodies[0] if bodies else None

    def dump(self, request: Request) -> Iterator[bytes]:
        """Every object's body, read to the end first; asked again when the table changed meanwhile."""
        for _ in range(_DUMP_ATTEMPTS):
            bodies, interrupted = self._dump(request)
            if not interrupted:
                break
        return iter(bodies)

    def _dump(self, request: Request) -> tuple[list[bytes], bool]:
        self._seq += 1
        self._sock.send(_message(request, self._seq, NLM_F_REQUEST | NLM_F_DUMP))
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, seq, body in split(self._sock.recv(_RECEIVE_BYTES)):
                if seq != self._seq:
                    continue
                interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
                if kind == NLMSG_ERROR:
                    _raise_for(body, flags, request)
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    return bodies, interrupted
                bodies.append(body)

    def _transact(self, requests: Sequence[Request]) -> list[bytes]:
        first = self._seq + 1
        packets = []
        for request in requests:
            self._seq += 1
            packets.append(_message(request, self._seq, NLM_F_REQUEST | NLM_F_ACK))
        self._sock.send(b"".join(packets))
        pending = set(range(first, self._seq + 1))
        bodies: list[bytes] = []
        failure: OSError | None = None
        while pending:
            for kind, flags, seq, body in split(self._sock.recv(_RECEIVE_BYTES)):
                if seq not in pending:
                    continue
                if kind != NLMSG_ERROR:
                    bodies.append(body)
                    continue
                pending.discard(seq)
                try:
                    _raise_for(body, flags, requests[seq - first])
                except OSError as e:
                    failure = failure or e
        if failure is not None:
            raise failure
        return bodies


def _message(request: Request, seq: int, flags: int) -> bytes:
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


def _raise_for(body: bytes, flags: int, request: Request) -> None:
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


def open_in(netns_fd: int, protocol: int = NETLINK_ROUTE) -> Netlink:
    """A socket in another network namespace (OSError)."""
    return in_namespace(netns_fd, lambda: Netlink(protocol=protocol))


@contextlib.contextmanager
def entered(netns_fd: int) -> Iterator[None]:
    """Be in another network namespace with the calling thread, for a moment and for nothing that may block."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        ns.setns(netns_fd, ns.CLONE_NEWNET)
        try:
            yield
        finally:
            ns.setns(home, ns.CLONE_NEWNET)
    finally:
        os.close(home)


def in_namespace(netns_fd: int, make: Callable[[], T]) -> T:
    """What ``make`` returns in another network namespace; by a short-lived thread, since setns(2) moves the caller's.

    Raises the OSError of entering or making.
    """
    made: list[T] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            ns.setns(netns_fd, ns.CLONE_NEWNET)
            made.append(make())
        except OSError as e:
            failed.append(e)

    thread = threading.Thread(target=enter, name="setns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]
