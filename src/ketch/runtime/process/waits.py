"""Sockets of clients that wait for the container's exit over HTTP, kept in case ketchd ends before.

The `docker` client gives a container up when its ``wait`` request breaks off.  So ketchd, which answers such a
request itself, leaves a copy of the client's socket here.  When the container ends and that ketchd is still connected,
the copies are closed and it answers; when it is gone, the monitor does: one chunk of JSON and the end (RFC 9112 §7.1).
"""

from __future__ import annotations

import os

from ketch.contexts import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from ketch.runtime.process.control import Controls
    from ketch.runtime.process.loop import Loop
    from ketch.runtime.protocol import ExitRecord


class Waits:
    """The held sockets, each with the connection that brought it."""

    def __init__(self, loop: Loop, controls: Controls) -> None:
        self._loop = loop
        self._controls = controls
        self._held: dict[int, socket] = {}

    def hold(self, control: socket, fd: int) -> None:
        """Keep ``fd`` (the monitor's from now on) until the container or the client ends."""
        self._held[fd] = control
        # No events: a client that goes away is reported all the same (EPOLLHUP).
        self._loop.add(fd, 0, lambda _events: self._release(fd))

    def _release(self, fd: int) -> None:
        self._loop.remove(fd)
        del self._held[fd]
        os.close(fd)

    def answer(self, record: ExitRecord) -> None:
        """Answer, after the container's end, in place of daemons that are gone; close all."""
        body = b'{"StatusCode":%d}\n' % record["code"]
        for fd, control in list(self._held.items()):
            if not self._controls.has(control):
                with suppress(OSError):  # it went away or does not read: there is nobody to tell
                    os.write(fd, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            self._release(fd)
