"""Datagrams of launcher, monitor and ketchd: JSON with descriptors beside it (SOCK_SEQPACKET); see `runtime.protocol`.

Also the small files in a container's run directory.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socketpair

from ketch.linux import fdpass
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Mapping
    from typing import Any

    from ketch.runtime.protocol import ChildMessage, ExecRecord, ExitRecord, StreamsRequest

EXIT_RECORD = "exit.json"
CONTROL_SOCKET = "control.sock"
PID_FILE = "monitor.pid"


def send(sock: socket | int, message: Mapping[str, Any], fds: list[int] | tuple[int, ...] = ()) -> None:
    """Send a message; ``fds`` stay the caller's (OSError as `fdpass.send`)."""
    fdpass.send(sock, documents.dumps(message).encode(), fds)


def receive(sock: socket | int) -> tuple[Any, list[int]]:
    """The next message, of whichever type comes on that socket, and its descriptors, the caller's to close.

    (None, []) at the end; OSError as `fdpass.recv`, ValueError for what is no JSON.
    """
    payload, fds = fdpass.recv(sock)
    if not payload:
        return None, fds
    return documents.loads(payload), fds


def receive_from_child(sock: int) -> tuple[ChildMessage | None, list[int]]:
    """The next message of a child, which may have ended; (None, []) at the end.

    A child that ends with "go" unread makes the kernel report ECONNRESET, once, before what the child had sent.
    """
    for _ in range(2):
        try:
            return receive(sock)
        except ConnectionResetError:
            continue
        except OSError:
            break
    return None, []


def pair() -> tuple[int, int]:
    """Two connected SEQPACKET descriptors, close-on-exec, the caller's to close."""
    first, second = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    return first.detach(), second.detach()


def write_file(path: str, data: bytes) -> None:
    """Write a file without Python's file objects, whose memory a monitor would never free."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def take_early_input(request: StreamsRequest, fds: list[int]) -> bytes:
    """The client's early input, from a descriptor that is removed from ``fds`` and closed."""
    if not request.get("early"):
        return b""
    fd = fds.pop(0)
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def write_record(directory: str, name: str, record: ExitRecord | ExecRecord) -> None:
    """Write a small JSON file so that readers see all of it or nothing."""
    path = os.path.join(directory, name)
    write_file(path + ".new", documents.dumps(record).encode())
    os.rename(path + ".new", path)


def exit_code(status: int) -> int:
    """A wait status → the code that Docker reports: 128 + n for a signal."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
