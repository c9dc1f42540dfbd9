"""Messages for a syslog server: Docker's four formats, over unix sockets, UDP and TCP.

    (default)     <PRI>Jan  2 15:04:05 TAG[PID]: text                        what /dev/log expects
    rfc3164       <PRI>Jan  2 15:04:05 HOST TAG[PID]: text
    rfc5424       <PRI>1 2024-01-02T15:04:05Z HOST TAG PID TAG - text
    rfc5424micro  the same with microseconds

Each message ends with a newline; over a stream that is what separates them (RFC 6587 §3.4.2).
"""

from __future__ import annotations

import os
import time
from errno import EPROTOTYPE

from ketch.notation import times
from ketch.runtime.logs import destination
from ketch.runtime.logs.destination import Destination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
_SEVERITY = {1: 6, 2: 3}  # info, err


class Syslog(Destination):
    """Messages of one container.

    ``address``: ["unix" | "unixgram", path] or ["tcp" | "udp", IP address, port].
    """

    def __init__(self, address: list[str | int], facility: int, message_format: str, tag: str) -> None:
        self._address = address
        self._priority = {stream: facility << 3 | severity for stream, severity in _SEVERITY.items()}
        self._message_format = message_format
        self._tag = tag
        self._host = os.uname().nodename
        self._pid = os.getpid()
        self._head_for = (-1, 0)
        self._head = b""

    def connect(self) -> tuple[socket, int]:
        """A socket to the server, 0 or EINPROGRESS (OSError)."""
        try:
            return destination.connect(self._address)
        except OSError as e:
            if e.errno != EPROTOTYPE or self._address[0] != "unix":
                raise
            return destination.connect(["unixgram", self._address[1]])  # what /dev/log is nearly everywhere

    def message(self, ns: int, stream: int, line: bytes, _partial: bool) -> bytes:
        """A line as it is sent."""
        step = ns // 1000 if self._message_format == "rfc5424micro" else ns // 1_000_000_000
        if self._head_for != (step, stream):
            self._head_for, self._head = (step, stream), self._header(ns, self._priority[stream]).encode()
        return b"%s%s\n" % (self._head, line)

    def _header(self, ns: int, priority: int) -> str:
        if self._message_format in ("", "rfc3164"):
            host = f" {self._host}" if self._message_format else ""
            local = time.localtime(ns // 1_000_000_000)
            return f"<{priority}>{time.strftime('%b %e %H:%M:%S', local)}{host} {self._tag}[{self._pid}]: "
        stamp = times.local(ns, 6 if self._message_format == "rfc5424micro" else 0)
        return f"<{priority}>1 {stamp} {self._host} {self._tag} {self._pid} {self._tag} - "
