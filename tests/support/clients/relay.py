"""A relay of a unix socket, as ssh(1) makes them: who connects to the daemon is another process than its client."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAM = """
import socket, sys, threading
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
def copy(source, target):
    while data := source.recv(1 << 16):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)
while True:
    near, _ = listener.accept()
    far = socket.socket(socket.AF_UNIX)
    far.connect(sys.argv[2])
    for pair in ((near, far), (far, near)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
"""


@contextlib.contextmanager
def running(path: str, target: str) -> Iterator[None]:
    """A relay from ``path`` to the socket ``target``."""
    with subprocess.Popen([sys.executable, "-c", _PROGRAM, path, target], stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: os.path.exists(path) and _answers(path), "a relay")
            yield
        finally:
            process.kill()


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
    return True
