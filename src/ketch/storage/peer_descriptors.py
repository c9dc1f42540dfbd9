"""Descriptors that a client on a unix socket has open, taken out of its process (pidfd_getfd(2)), or sent by it.

So a directory need not be sent: the client says which of its descriptors is meant, and that it has not been closed and
that nobody stands between is known by device and inode.  Out of a user namespace a daemon may not look into processes
outside of it: to that of a user, clients send descriptors beforehand (unix(7), SCM_RIGHTS), on a connection that is
taken from the HTTP server, which reads with recv(2) and would drop them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import struct
from errno import EBADF, ENOPROTOOPT, ENOSYS, EPERM
from typing import TYPE_CHECKING, NamedTuple

from ketch import pidfd
from ketch.errors import InvalidArgument, PermissionDenied, Unavailable
from ketch.linux import fdpass
from ketch.linux.processes.pidfd_getfd import copy_descriptor

if TYPE_CHECKING:
    from typing import Any, Protocol

    class _Socket(Protocol):
        def getsockopt(self, level: int, option: int, size: int = 0, /) -> Any: ...


_SO_PEERPIDFD = 77  # Linux 6.5
_UCRED = struct.Struct("iII")
_INSTEAD = "send the directory as an archive"
_MOST = 253  # descriptors in one message (unix(7), SCM_MAX_FD)
RECEIVED = b"\n"


class PeerDescriptor(NamedTuple):
    """A descriptor's number in the client's process, and the object that it must mean."""

    number: int
    device: int
    inode: int


def take(sock: _Socket, wanted: PeerDescriptor) -> int:
    """A copy of the descriptor, the caller's to close.

    PermissionDenied: it cannot be had, or is another object; InvalidArgument: the client has none of that number.
    """
    process = _process(sock)
    try:
        fd = copy_descriptor(process, wanted.number)
    except ProcessLookupError as e:
        raise Unavailable(f"take descriptor {wanted.number} of the client: it has ended") from e
    except OSError as e:
        if e.errno == EBADF:
            raise InvalidArgument(f"take descriptor {wanted.number} of the client: it has none of that number") from e
        if e.errno in (EPERM, ENOSYS):
            raise _denied(wanted.number, os.strerror(e.errno).lower()) from e
        raise
    finally:
        os.close(process)
    return _checked(fd, wanted)


def _checked(fd: int, wanted: PeerDescriptor) -> int:
    status = os.fstat(fd)
    if (status.st_dev, status.st_ino) != (wanted.device, wanted.inode):
        os.close(fd)
        raise _denied(wanted.number, "it is another object there, as when a program relays the connection")
    return fd


class SentDescriptors:
    """Descriptors that clients have sent, each until it is taken, or its client closes the connection by which it came.

    A client sends one message: the numbers that its own process has for them, in text, with the descriptors.
    """

    def __init__(self) -> None:
        self._held: dict[str, dict[int, int]] = {}  # by the connection's token, ours by the client's number

    def token(self) -> str:
        """A new token, which nobody guesses."""
        return secrets.token_hex(16)

    def hold(self, token: str, connection: socket.socket) -> None:
        """Receive what comes by a connection, which is closed when the client closes its end."""
        held: dict[int, int] = {}
        self._held[token] = held
        came = False
        loop = asyncio.get_running_loop()
        connection.setblocking(False)

        def read() -> None:
            nonlocal came
            try:
                received = {} if came else _received(connection)
            except BlockingIOError:
                return
            if received:
                came = True
                held.update(received)
                return
            loop.remove_reader(connection)
            connection.close()
            for fd in self._held.pop(token).values():
                os.close(fd)

        loop.add_reader(connection, read)

    def take(self, token: str, wanted: PeerDescriptor) -> int:
        """A descriptor that was sent, once, the caller's to close (PermissionDenied: it was not, or is another)."""
        fd = self._held.get(token, {}).pop(wanted.number, -1)  # no copy: of a pipe nobody else may have it open
        if fd < 0:
            raise _denied(wanted.number, "it has not been sent")
        return _checked(fd, wanted)


def _received(connection: socket.socket) -> dict[int, int]:
    """One message's descriptors by their numbers; none at the end, and of what is no such message."""
    try:
        payload, fds = fdpass.recv(connection, _MOST)
    except BlockingIOError:
        raise
    except OSError:
        return {}
    numbers = payload.split()
    if fds and len(set(numbers)) == len(fds) and all(number.isdigit() and len(number) < 10 for number in numbers):
        with contextlib.suppress(OSError):  # else the client is gone, which the next reading shows
            connection.send(RECEIVED)
        return dict(zip(map(int, numbers), fds, strict=True))
    for fd in fds:
        os.close(fd)
    return {}


def _process(sock: _Socket) -> int:
    """A descriptor of the process that made the connection.

    Where the kernel gives none, its pid must do, which may be another process's by now: the object is compared.
    """
    try:
        return int(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
    except OSError as e:
        if e.errno != ENOPROTOOPT:
            raise Unavailable("take a descriptor of the client: it has ended") from e
    pid, _, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if not pid:
        raise PermissionDenied("take a descriptor of the client: its process cannot be seen from here", hint=_INSTEAD)
    try:
        return pidfd.open_process(pid)
    except ProcessLookupError as e:
        raise Unavailable("take a descriptor of the client: it has ended") from e


def _denied(number: int, why: str) -> PermissionDenied:
    return PermissionDenied(f"take descriptor {number} of the client: {why}", hint=_INSTEAD)
