"""Destinations of log messages: what drivers for remote log servers share (sockets, retries, pieces of long lines)."""

from __future__ import annotations

import os
from _socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    IPPROTO_TCP,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    TCP_USER_TIMEOUT,
    inet_pton,
    socket,
)
from errno import EINPROGRESS, EMSGSIZE


class Destination:
    """The format of one container's messages, and where they go; the attributes here are the usual ones."""

    largest = 1 << 62  # bytes: what is longer goes through `send_large` at once
    retry_s = 1.0  # between attempts to connect
    retries = 0  # failed attempts after which a message is given up; 0: never
    acknowledges = False  # whether the server confirms each message

    def connect(self) -> tuple[socket, int]:
        """A non-blocking socket and 0 or EINPROGRESS (OSError)."""
        raise NotImplementedError

    def message(self, ns: int, stream: int, line: bytes, partial: bool) -> bytes:
        """One line, or piece of one, as it is sent; nothing for one that is not sent."""
        raise NotImplementedError

    def send_large(self, _sock: socket, _message: bytes) -> None:
        """Send a message that does not fit into a datagram (OSError); most formats have no way to do so."""
        raise OSError(EMSGSIZE, os.strerror(EMSGSIZE))

    def acknowledged(self, _data: bytes) -> bool | None:
        """Whether ``data``, all that has come, confirms the last message; None while it is incomplete."""
        return True


class Pieces:
    """Numbers the pieces of long lines; all pieces of a line have the first one's time, as with Docker."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[str, int, int]] = {}  # by stream: id, number of the last piece, time

    def next(self, ns: int, stream: int, partial: bool) -> tuple[int, str, int]:
        """(time, id, number from 1) of a piece; the id of a whole line is empty."""
        ident, number, first = self._open.pop(stream, ("", 0, ns))
        if partial:
            ident = ident or os.urandom(32).hex()
            self._open[stream] = (ident, number + 1, first)
        return first, ident, number + 1


def connect(address: list[str | int], timeout_ms: int = 0) -> tuple[socket, int]:
    """A socket to ["unix" | "unixgram", path] or ["tcp" | "udp", IP address, port], and 0 or EINPROGRESS (OSError).

    ``timeout_ms``: how long a TCP server may leave what was sent to it unread before the connection is given up.
    """
    kind = SOCK_STREAM if address[0] in ("tcp", "unix") else SOCK_DGRAM
    if address[0] in ("unix", "unixgram"):
        return _open(AF_UNIX, kind, str(address[1]))
    family = AF_INET6 if ":" in str(address[1]) else AF_INET
    inet_pton(family, str(address[1]).partition("%")[0])  # a name is refused: looking it up would hold up everything
    return _open(family, kind, (str(address[1]), int(address[2])), timeout_ms if address[0] == "tcp" else 0)


def _open(family: int, kind: int, target: str | tuple[str, int], timeout_ms: int = 0) -> tuple[socket, int]:
    sock = socket(family, kind | SOCK_CLOEXEC | SOCK_NONBLOCK)
    try:
        if timeout_ms:
            sock.setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, timeout_ms)
        status = sock.connect_ex(target)
        if status not in (0, EINPROGRESS):
            raise OSError(status, os.strerror(status))
    except BaseException:
        sock.close()
        raise
    return sock, status
