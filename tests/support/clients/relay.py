"""Relays of a daemon's sockets, as ssh(1) makes them: who connects to it is another process than its client."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAM = """
import socket, sys, threading
def address(text):
    return text if "/" in text else ("127.0.0.1", int(text))
def made(text):
    return socket.socket(socket.AF_UNIX if "/" in text else socket.AF_INET)
listener = made(sys.argv[1])
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(address(sys.argv[1]))
listener.listen()
def copy(source, target):
    while data := source.recv(1 << 16):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)
while True:
    near, _ = listener.accept()
    far = made(sys.argv[2])
    far.connect(address(sys.argv[2]))
    for pair in ((near, far), (far, near)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
"""


@contextlib.contextmanager
def running(path: str, target: str) -> Iterator[None]:
    """A relay from ``path`` to the socket ``target``, or between ports of 127.0.0.1; what it has open ends with it."""
    with subprocess.Popen([sys.executable, "-c", _PROGRAM, path, target], stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _answers(path), "a relay")
            yield
        finally:
            process.kill()


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX if "/" in path else socket.AF_INET) as probe:
        try:
            probe.connect(path if "/" in path else ("127.0.0.1", int(path)))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True
