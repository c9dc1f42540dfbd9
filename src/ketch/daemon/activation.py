"""Socket activation: listening sockets that the service manager has opened and passes on (sd_listen_fds(3))."""

from __future__ import annotations

import ipaddress
import os
import socket

from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.notation import digits

SCHEME = "fd://"
_FIRST = 3  # SD_LISTEN_FDS_START


def expanded(hosts: list[str]) -> list[str]:
    """The addresses with each passed socket's own (``fd://3``) in the place of ``fd://``, which means all of them.

    The variables that tell of the sockets are taken away, for programs that this one starts (FailedPrecondition: there
    are none).
    """
    names = {name: os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    count = 0
    if names["LISTEN_PID"] == str(os.getpid()):
        count = digits.whole(names["LISTEN_FDS"], 1 << 16) or 0
    passed = [f"{SCHEME}{_FIRST + i}" for i in range(count)]
    for fd in range(_FIRST, _FIRST + count):
        os.set_inheritable(fd, False)
    result: list[str] = []
    for host in hosts:
        if host.startswith(SCHEME) and (not passed or host not in (SCHEME, *passed)):
            raise FailedPrecondition(
                f"listen on `{host}`: the service manager has passed {len(passed) or 'no'} sockets",
                hint="fd:// is for a unit with a socket (systemctl start ketch.socket); else listen on unix://PATH",
            )
        result += passed if host == SCHEME else [host]
    return result


def passed_socket(host: str, *, secured: bool) -> socket.socket:
    """The listening socket of an address such as ``fd://3`` (InvalidArgument: it is something else).

    One that other machines reach is refused unless it is ``secured``, as if its address were given.
    """
    try:
        result = socket.socket(fileno=int(host.removeprefix(SCHEME)))
        if result.type != socket.SOCK_STREAM or not result.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError("it is no listening stream socket")
    except OSError as e:
        raise InvalidArgument(
            f"listen on `{host}`: {e.strerror or e}", hint="the socket unit needs ListenStream=, and no Accept=yes"
        ) from e
    if not secured and not is_local(result):
        raise InvalidArgument(
            f"listen on `{host}`, which is {result.getsockname()}: refused, because without TLS whoever reaches it is "
            "root here",
            hint="ListenStream= of a path or of 127.0.0.1:PORT, --tlsverify with certificates, or --insecure-tcp",
        )
    result.setblocking(False)
    return result


def is_local(listener: socket.socket) -> bool:
    """Whether no other machine reaches a socket."""
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback
    return listener.family == socket.AF_UNIX
