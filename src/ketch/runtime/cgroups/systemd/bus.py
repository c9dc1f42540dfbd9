"""A connection to systemd: the system bus, or without one its own socket, which only root may use.

A connection serves one conversation of a few calls, so it may block, for a limited time.  What can be said without an
answer is said at once: authentication, greeting and the first calls travel together.
"""

from __future__ import annotations

import os
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups.systemd import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BUS = "/run/dbus/system_bus_socket"
_PRIVATE = "/run/systemd/private"
_TIMEOUT_S = 30.0  # what D-Bus's own libraries wait
_CHUNK = 65536
_HINT = "is systemd the machine's first process? The cgroupfs driver needs none"


class BusError(RuntimeFailure):
    """An answer that is an error; ``name`` is its D-Bus name."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message, step="cgroups")
        self.name = name


class Bus:
    """An open connection, on which an answer is waited for so long, whatever else comes meanwhile; `close` it."""

    def __init__(self, timeout_s: float = _TIMEOUT_S) -> None:
        self._serial = 0
        self._timeout_s = timeout_s
        self._deadline = 0.0
        self._received = b""
        self._unsent = bytearray(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\nBEGIN\r\n")
        self._signals: list[wire.BusMessage] = []
        self._ignored: set[int] = set()
        self._socket, self.path = _connect(timeout_s)
        self._welcomed = False
        if self.path == _BUS:
            self._ignored.add(self._say("org.freedesktop.DBus", "/org/freedesktop/DBus", "Hello", "", []))

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def watch(self, rule: str) -> None:
        """Receive the signals of a match rule from now on; systemd's own socket sends them unasked."""
        if self.path == _BUS:
            serial = self._say("org.freedesktop.DBus", "/org/freedesktop/DBus", "AddMatch", "s", [rule])
            self._ignored.add(serial)

    def call(self, member: str, signature: str, values: list[Any]) -> list[Any]:
        """Call a method of systemd's manager; BusError: its answer is one."""
        serial = self._say("org.freedesktop.systemd1", "/org/freedesktop/systemd1", member, signature, values)
        self._deadline = time.monotonic() + self._timeout_s
        while True:
            message = self._receive()
            answers = message.fields.get(wire.REPLY_SERIAL)
            if message.kind == wire.SIGNAL:
                self._signals.append(message)
            elif message.kind == wire.ERROR and (answers == serial or answers in self._ignored):
                name = str(message.fields.get(wire.ERROR_NAME, ""))
                raise BusError(str(message.body[0]) if message.body else name, name)
            elif answers == serial:
                return message.body

    def signal(self, member: str, signature: str) -> list[Any]:
        """The next signal of that name with such values, also one that came before the answer to a call."""
        wanted = (member, signature)
        self._deadline = time.monotonic() + self._timeout_s
        while True:
            message = self._signals.pop(0) if self._signals else self._receive()
            fields = message.fields
            if message.kind == wire.SIGNAL and (fields.get(wire.MEMBER), fields.get(wire.SIGNATURE, "")) == wanted:
                return message.body

    def _say(self, destination: str, path: str, member: str, signature: str, values: list[Any]) -> int:
        self._serial += 1
        interface = "org.freedesktop.DBus" if destination == "org.freedesktop.DBus" else _MANAGER
        fields = {wire.PATH: path, wire.INTERFACE: interface, wire.MEMBER: member, wire.DESTINATION: destination}
        self._unsent += wire.call(self._serial, fields, signature, values)
        return self._serial

    def _receive(self) -> wire.BusMessage:
        try:
            self._limit()
            if self._unsent:
                self._socket.sendall(self._unsent)
                self._unsent.clear()
            if not self._welcomed:
                self._welcome()
            self._fill(wire.HEAD)
            size = wire.length(self._received[: wire.HEAD])
            self._fill(size)
            data, self._received = self._received[:size], self._received[size:]
            return wire.parse(data)
        except TimeoutError as e:
            raise _broken(self.path, f"no answer within {self._timeout_s:g} s") from e
        except OSError as e:
            raise _broken(self.path, os.strerror(e.errno or 0).lower()) from e
        except ValueError as e:
            raise _broken(self.path, str(e)) from e

    def _welcome(self) -> None:
        """Read the answer to the authentication, which is one line."""
        while b"\r\n" not in self._received:
            self._fill(len(self._received) + 1)
        line, _, self._received = self._received.partition(b"\r\n")
        if not line.startswith(b"OK"):
            raise _broken(self.path, f"it does not know this user ({line.decode(errors='replace')})")
        self._welcomed = True

    def _limit(self) -> None:
        """Have the next system call end in time (TimeoutError: that is over)."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)

    def _fill(self, size: int) -> None:
        while len(self._received) < size:
            self._limit()
            data = self._socket.recv(_CHUNK)
            if not data:
                raise _broken(self.path, "it ended the connection")
            self._received += data


_MANAGER = "org.freedesktop.systemd1.Manager"


def _connect(timeout_s: float) -> tuple[socket, str]:
    """A socket connected to the bus, else to systemd itself; and which of the two it is."""
    reason = ""
    for path in (_BUS, _PRIVATE):
        connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        connection.settimeout(timeout_s)
        try:
            connection.connect(path)
        except OSError as e:
            connection.close()
            reason = reason or f"{path}: {os.strerror(e.errno or 0).lower()}"
            continue
        return connection, path
    raise RuntimeFailure(f"connect to systemd: {reason}", step="cgroups", hint=_HINT)


def _broken(path: str, reason: str) -> RuntimeFailure:
    return RuntimeFailure(f"ask systemd by `{path}`: {reason}", step="cgroups")
