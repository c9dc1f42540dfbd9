"""``system dial-stdio``: a connection to the daemon on the standard streams, for ``ssh://`` addresses."""

from __future__ import annotations

import _socket
import os
import threading
from contextlib import closing, suppress

from ketch.cli.options.flags import FlagSet
from ketch.cli.session import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context

_CHUNK = 1 << 17


def cmd_dial_stdio(args: list[str], ctx: Context) -> int:
    """Copy standard input to the daemon's socket, and what it sends to standard output, until it ends."""
    spec = FlagSet("system dial-stdio", "ketch system dial-stdio", "Connect the standard streams to the daemon")
    spec.arguments(spec.parse(args)[1], 0, 0)
    from ketch.client.transport import connect

    with closing(connect(ctx.host)) as sock:
        threading.Thread(target=_send, args=(sock,), name="input", daemon=True).start()
        while data := sock.recv(_CHUNK):
            write_all(1, data)
    return 0


def _send(sock: _socket.socket) -> None:
    """Copy standard input, in a thread: the daemon may want to be read before it reads on."""
    with suppress(OSError):  # it has ended: what it still sends is read by the other one
        while data := os.read(0, _CHUNK):
            sock.sendall(data)
        sock.shutdown(_socket.SHUT_WR)
