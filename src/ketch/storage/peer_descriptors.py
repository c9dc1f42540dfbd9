"""Descriptors that a client on a unix socket has open, taken out of its process (pidfd_getfd(2)).

So a directory need not be sent: the client says which of its descriptors is meant, and that it has not been closed and
that nobody stands between is known by device and inode.  (SCM_RIGHTS would do the same, but HTTP servers read with
recv(2), which drops descriptors.)
"""

from __future__ import annotations

import os
import socket
import struct
from errno import EBADF, ENOPROTOOPT, ENOSYS, EPERM
from typing import TYPE_CHECKING, NamedTuple

from ketch import pidfd
from ketch.errors import InvalidArgument, PermissionDenied, Unavailable
from ketch.linux.processes.pidfd_getfd import copy_descriptor

if TYPE_CHECKING:
    from typing import Any, Protocol

    class _Socket(Protocol):
        def getsockopt(self, level: int, option: int, size: int = 0, /) -> Any: ...


_SO_PEERPIDFD = 77  # Linux 6.5
_UCRED = struct.Struct("iII")
_INSTEAD = "send the directory as an archive"


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
    status = os.fstat(fd)
    if (status.st_dev, status.st_ino) != (wanted.device, wanted.inode):
        os.close(fd)
        raise _denied(wanted.number, "it is another object there, as when a program relays the connection")
    return fd


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
