"""Graceful close of a client's connection, which receives every byte that was sent.

Closing a socket with input that nobody has read makes the kernel reset the connection: the client sees an error where
the end should be, and over TCP it may lose output that was still on its way (RFC 2525 §2.17).  So the
sending side is shut down first, and the rest of the input is read and dropped.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SHUT_RDWR, SHUT_WR, SOCK_STREAM, SOL_SOCKET, socket

from ketch.contexts import suppress
from ketch.runtime.process.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.runtime.process.loop import Loop

_SO_DOMAIN = 39
_CHUNK = 1 << 16


def close(loop: Loop, fd: int, when_closed: Callable[[], None]) -> bool:
    """End the connection and close ``fd``; True when that has to wait for the client's own end (TCP).

    Then ``when_closed`` is called later.  An AF_UNIX socket that is shut down takes nothing more, so that what
    is in it can be dropped at once.
    """
    sock = socket(AF_UNIX, SOCK_STREAM, 0, fd)
    try:
        local = sock.getsockopt(SOL_SOCKET, _SO_DOMAIN) == AF_UNIX
        sock.shutdown(SHUT_RDWR if local else SHUT_WR)
    except OSError:  # the client was faster, or it is no socket
        local = True
    finally:
        sock.detach()
    if not local:
        loop.add(fd, READ, lambda _events: _drop(loop, fd, when_closed))
        return True
    with suppress(OSError):
        while os.read(fd, _CHUNK):
            pass
    os.close(fd)
    return False


def _drop(loop: Loop, fd: int, when_closed: Callable[[], None]) -> None:
    try:
        if os.read(fd, _CHUNK):
            return
    except BlockingIOError:
        return
    except OSError:
        pass  # reset: it is gone as well
    loop.remove(fd)
    os.close(fd)
    when_closed()
