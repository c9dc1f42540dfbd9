"""The last exchange with a process that was told to execute its program."""

from __future__ import annotations

from ketch.linux import fdpass
from ketch.notation import documents
from ketch.runtime.failure import from_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from ketch.runtime.oci_cli.state import RuntimeState


def wait(connection: socket, state: RuntimeState, status: str) -> None:
    """Wait until the program runs; raises the error of its start.

    The listener of its seccomp filter is sent to the supervisor, with the container's state and this ``status``.
    """
    while True:
        payload, fds = fdpass.recv(connection, 2)
        if not payload:
            return
        message = documents.loads(payload)
        if message["ev"] != "notify":
            raise from_message(message)
        from ketch.runtime.security import seccomp_listener  # few need it

        seccomp_listener.hand_over(message, fds, state.of_hooks(status, state.pid))
