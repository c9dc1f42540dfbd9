"""A supervisor: it gets listeners of seccomp filters, and answers system calls (seccomp_unotify(2))."""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTIFICATION, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_GO_ON = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE


class Supervisor:
    """It answers each call with ``error``, or lets it happen with 0; a context."""

    def __init__(self, path: Path, error: int) -> None:
        self.path = str(path)
        self.told: list[dict[str, Any]] = []
        self.pids: list[int] = []
        self.connections = 0
        self._error = error
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self.path)
        self._socket.listen()
        self._stop_r, self._stop_w = os.pipe()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._stop_w)
        self._thread.join()
        self._socket.close()
        os.close(self._stop_r)

    def _serve(self) -> None:
        listeners: list[int] = []
        while True:
            ready, _, _ = select.select([self._stop_r, self._socket, *listeners], [], [])
            for one in ready:
                if one == self._stop_r:
                    for fd in listeners:
                        os.close(fd)
                    return
                if one is self._socket:
                    listeners += self._taken()
                elif not self._answered(one):
                    os.close(one)
                    listeners.remove(one)

    def _taken(self) -> list[int]:
        connection, _ = self._socket.accept()
        self.connections += 1
        with connection:
            data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 4)
        if data:
            self.told.append(json.loads(data))
        return fds

    def _answered(self, fd: int) -> bool:
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(fd, _RECEIVE, buffer)
            number, pid, *_ = _NOTIFICATION.unpack(buffer)
            self.pids.append(pid)
            flags = 0 if self._error else _GO_ON
            fcntl.ioctl(fd, _SEND, bytearray(_ANSWER.pack(number, 0, -self._error, flags)))
        except FileNotFoundError:  # the process has ended, with or without the call
            poll = select.poll()
            poll.register(fd, 0)
            return not poll.poll(0)
        return True
