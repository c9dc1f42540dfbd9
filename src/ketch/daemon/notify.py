"""Notification of the service manager (sd_notify(3)) that the daemon is ready or stops: units of ``Type=notify``."""

from __future__ import annotations

import logging
import os
import socket

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
