"""Datagrams with file descriptors over AF_UNIX SOCK_SEQPACKET sockets (unix(7), SCM_RIGHTS).

Built on the C module ``_socket``: the pure-Python ``socket`` module costs every monitor memory
(enum, selectors) that it never uses.
"""

from __future__ import annotations

import os
import struct
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_NOSIGNAL,
    MSG_TRUNC,
    SCM_RIGHTS,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
)
from errno import EMSGSIZE

MAX_DATAGRAM = 192 * 1024  # below the default net.core.wmem_default of 208 KiB less bookkeeping


def send(sock: socket | int, payload: bytes, fds: list[int] | tuple[int, ...] = (), flags: int = 0) -> None:
    """Send one datagram; ``fds`` stay the caller's to close.

    Raises OSError: EPIPE when the peer is gone, EMSGSIZE when the datagram is too large,
    EAGAIN when a non-blocking socket is full.
    """
    ancillary = [(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    if not isinstance(sock, int):
        sock.sendmsg([payload], ancillary, flags | MSG_NOSIGNAL)
        return
    # A Python socket object closes its fd when collected: detach gives it back unharmed.  Type and family
    # are named so that the constructor need not ask the kernel.
    borrowed = socket(AF_UNIX, SOCK_SEQPACKET, 0, sock)
    try:
        borrowed.sendmsg([payload], ancillary, flags | MSG_NOSIGNAL)
    finally:
        borrowed.detach()


def send_last(fd: int, payload: bytes) -> None:
    """Send one datagram from a process whose seccomp filter, in force by now, may not allow sendmsg(2)."""
    try:
        send(fd, payload)
    except OSError:
        os.write(fd, payload)


def recv(sock: socket | int, maxfds: int = 16, flags: int = 0, size: int = MAX_DATAGRAM) -> tuple[bytes, list[int]]:
    """Receive one datagram; the returned fds are close-on-exec and the caller's to close.

    ``b""`` means that the peer has closed its end.  A datagram or fd list that does not fit raises
    OSError(EMSGSIZE) after closing whatever did arrive.
    """
    if isinstance(sock, int):
        borrowed = socket(AF_UNIX, SOCK_SEQPACKET, 0, sock)
        try:
            return recv(borrowed, maxfds, flags, size)
        finally:
            borrowed.detach()
    payload, ancillary, got_flags, _ = sock.recvmsg(size, CMSG_SPACE(maxfds * 4), flags | MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            fds.extend(struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4]))
    if got_flags & (MSG_TRUNC | MSG_CTRUNC):
        for fd in fds:
            os.close(fd)
        raise OSError(EMSGSIZE, f"datagram of more than {size} bytes or {maxfds} descriptors")
    return payload, fds
