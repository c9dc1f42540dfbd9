"""The service manager: it is told that the daemon is ready or stops (sd_notify(3)), and asked why it stops it."""

from __future__ import annotations

import logging
import os
import socket

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups.systemd import state

log = logging.getLogger(__name__)


def send(state: str) -> None:
    """Send ``state``, such as ``READY=1``, where ``NOTIFY_SOCKET`` says; nothing without it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract name (unix(7))
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError as e:
            log.warning("tell the service manager %s: %s", state, e.strerror)


def extend(seconds: int) -> None:
    """Tell it that the daemon's end may take that long from now, rather than what its unit allows."""
    send(f"EXTEND_TIMEOUT_USEC={seconds * 1000000}")


def machine_stops() -> bool:
    """Whether it is systemd that stops everything, not the daemon alone."""
    try:
        return state.stopping()
    except (RuntimeFailure, OSError) as e:
        log.warning("ask systemd whether the machine stops: %s: containers go on", e)
        return False
