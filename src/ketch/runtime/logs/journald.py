"""Messages for systemd-journald in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

One datagram is one entry: ``FIELD=value\\n``, or ``FIELD\\n``, the length as 64 bits little-endian, the value and
``\\n`` where it may contain newlines.  An entry that is too large for a datagram is written to a sealed memfd, whose
descriptor is sent instead.
"""

from __future__ import annotations

import fcntl
import os
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOL_SOCKET, socket
from struct import Struct

from ketch.runtime.logs.destination import Destination

SOCKET = "/run/systemd/journal/socket"
_LENGTH = Struct("<Q")
_FD = Struct("i")
_PRIORITY = {1: b"PRIORITY=6\n", 2: b"PRIORITY=3\n"}  # info, err
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def field(name: str, value: bytes) -> bytes:
    """One field of an entry."""
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), _LENGTH.pack(len(value)), value)


class Journal(Destination):
    """Entries of one container; ``fields`` stand in each of them."""

    def __init__(self, path: str, fields: dict[str, str]) -> None:
        self._path = path
        self._fields = b"".join(field(name, value.encode("utf-8", "surrogateescape")) for name, value in fields.items())

    def connect(self) -> tuple[socket, int]:
        """A socket to journald (OSError)."""
        sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
        try:
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        return sock, 0

    def message(self, _ns: int, stream: int, line: bytes, partial: bool) -> bytes:
        """An entry."""
        more = b"CONTAINER_PARTIAL_MESSAGE=true\n" if partial else b""
        return b"".join((self._fields, _PRIORITY[stream], more, field("MESSAGE", line)))

    def send_large(self, sock: socket, message: bytes) -> None:
        """Send an entry through memory that is sealed, so that journald can trust it (OSError)."""
        fd = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(fd, message)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            sock.sendmsg([], [(SOL_SOCKET, SCM_RIGHTS, _FD.pack(fd))])
        finally:
            os.close(fd)
