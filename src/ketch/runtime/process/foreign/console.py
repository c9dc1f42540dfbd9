"""The console socket on which a runtime hands over the terminal that it has made."""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

from ketch.contexts import suppress
from ketch.errors import RuntimeFailure
from ketch.linux import fdpass


class Console:
    """A listening socket in a directory; ``path``, which is short, is valid as long as this process lives."""

    def __init__(self, directory: str) -> None:
        self._name = os.path.join(directory, f"console.{os.getpid()}")
        self._directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path = f"/proc/{os.getpid()}/fd/{self._directory_fd}/{os.path.basename(self._name)}"
        self._listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        self._listener.bind(self.path)
        self._listener.listen(1)

    def take(self) -> int:
        """The terminal's master, which a runtime that has come to its end has sent (RuntimeFailure: it has not)."""
        self._listener.setblocking(False)
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]
            connection = socket(AF_UNIX, SOCK_STREAM, 0, fd)
            connection.setblocking(False)
            _, fds = fdpass.recv(connection, 1)
            connection.close()
        except BlockingIOError:
            fds = []
        if not fds:
            raise RuntimeFailure("the runtime has handed over no terminal", step="tty")
        return fds[0]

    def close(self) -> None:
        """Remove the socket."""
        self._listener.close()
        os.close(self._directory_fd)
        with suppress(FileNotFoundError):
            os.unlink(self._name)
