"""A connection to systemd: the system bus, or without one its own socket, which only root may use.

A process without the machine's rights speaks to the systemd of its user, on the user's bus or that one's own socket.

A connection serves one conversation of a few calls, so it may block, for a limited time.  What can be said without an
answer is said at once: to a bus authentication, greeting and the first calls travel together.  systemd itself does not
look at calls that come with the authentication until it is sent something else.
"""

from __future__ import annotations

import os
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups import delegation
from ketch.runtime.cgroups.systemd import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BUS = "/run/dbus/system_bus_socket"
_PRIVATE = "/run/systemd/private"
# The other end knows the user from the socket: by another number than this process does, in a user namespace.
_GREETING = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"
_TIMEOUT_S = 30.0  # what D-Bus's own libraries wait
_CHUNK = 65536
_THE_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_SYSTEMD = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
_MANAGER = "org.freedesktop.systemd1.Manager"
_HINT = "is systemd the machine's first process? The cgroupfs driver needs none"


class BusError(RuntimeFailure):
    """An answer that is an error; ``name`` is its D-Bus name."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message, step="cgroups")
        self.name = name


class Bus:
    """An open connection, on which an answer is waited for so long, whatever else comes meanwhile; `close` it.

    ``direct``: it is systemd's own socket, rather than the bus.
    """

    def __init__(self, timeout_s: float = _TIMEOUT_S, *, direct: bool = False) -> None:
        self._serial = 0
        self._timeout_s = timeout_s
        self._deadline = 0.0
        self._received = b""
        self._unsent = bytearray()
        self._signals: list[wire.BusMessage] = []
        self._ignored: set[int] = set()
        bus, private = _sockets()
        self._socket, self.path = _connect((private, bus) if direct else (bus, private), timeout_s)
        self._on_bus = self.path == bus
        self._welcomed = False
        if self._on_bus:
            self._unsent += _GREETING
            self._ignored.add(self._say(*_THE_BUS, "Hello", "", []))

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def watch(self, rule: str) -> None:
        """Receive the signals of a match rule from now on; systemd's own socket sends them unasked."""
        if self._on_bus:
            self._ignored.add(self._say(*_THE_BUS, "AddMatch", "s", [rule]))

    def call(self, member: str, signature: str, values: list[Any]) -> list[Any]:
        """Call a method of systemd's manager; BusError: its answer is one."""
        return self._answer(self._say(*_SYSTEMD, _MANAGER, member, signature, values))

    def property(self, name: str) -> Any:
        """The value of a property of systemd's manager; BusError: its answer is one."""
        serial = self._say(*_SYSTEMD, "org.freedesktop.DBus.Properties", "Get", "ss", [_MANAGER, name])
        variant = self._answer(serial)
        return variant[0][1] if variant else None

    def _answer(self, serial: int) -> list[Any]:
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

    def _say(self, destination: str, path: str, interface: str, member: str, signature: str, values: list[Any]) -> int:
        self._serial += 1
        fields = {wire.PATH: path, wire.INTERFACE: interface, wire.MEMBER: member, wire.DESTINATION: destination}
        self._unsent += wire.call(self._serial, fields, signature, values)
        return self._serial

    def _receive(self) -> wire.BusMessage:
        try:
            self._limit()
            if not self._welcomed and not self._on_bus:
                self._socket.sendall(_GREETING)
                self._welcome()
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
        """Read the answers to the authentication, a line each."""
        line = b"DATA"
        while line.startswith(b"DATA"):
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


def _sockets() -> tuple[str, str]:
    """The paths of the bus, and of systemd itself."""
    if runtime := delegation.users_runtime():
        return f"{runtime}/bus", f"{runtime}/systemd/private"
    return _BUS, _PRIVATE


def _connect(paths: tuple[str, str], timeout_s: float) -> tuple[socket, str]:
    """A socket connected to the first that answers; and which it is."""
    reason = ""
    for path in paths:
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
