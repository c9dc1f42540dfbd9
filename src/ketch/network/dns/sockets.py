"""Sockets in other network namespaces, made by a thread that enters them."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from ketch.errors import KetchError
from ketch.linux import ns
from ketch.linux.netlink.client import in_namespace
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESS = "127.0.0.11"
PORT = 53
_BUFFER_BYTES = 4 << 20  # a burst of some thousand small queries
_SO_RCVBUFFORCE = 33
_BACKLOG = 128


class DnsSockets:
    """The DNS sockets of a container: 127.0.0.11, port 53, UDP and TCP, in its network namespace."""

    def __init__(self, udp: socket.socket, tcp: socket.socket) -> None:
        self.udp = udp
        self.tcp = tcp
        for sock in (udp, tcp):
            sock.setblocking(False)

    @staticmethod
    def from_fds(udp_fd: int, tcp_fd: int) -> DnsSockets:
        """The sockets behind descriptors that were kept; ours from now on."""
        return DnsSockets(socket.socket(fileno=udp_fd), socket.socket(fileno=tcp_fd))

    def fds(self) -> list[int]:
        """Their descriptors (still ours)."""
        return [self.udp.fileno(), self.tcp.fileno()]

    def close(self) -> None:
        """Close both."""
        self.udp.close()
        self.tcp.close()


def open_sockets(netns_fd: int) -> DnsSockets:
    """Open both sockets in a namespace whose loopback is up (KetchError when the address is taken there)."""

    def make() -> DnsSockets:
        with Undo() as undo:
            udp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with contextlib.suppress(PermissionError):  # without CAP_NET_ADMIN the default has to do
                udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
            udp.bind((ADDRESS, PORT))
            tcp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((ADDRESS, PORT))
            tcp.listen(_BACKLOG)
            undo.pop_all()
        return DnsSockets(udp, tcp)

    try:
        return in_namespace(netns_fd, make)
    except OSError as e:
        raise KetchError(f"answer names at {ADDRESS}:{PORT} in a container's network: {e}") from e


@contextlib.contextmanager
def visiting(netns_fd: int, home_fd: int) -> Iterator[None]:
    """A context in another network namespace, for a thread with no other user."""
    ns.setns(netns_fd, ns.CLONE_NEWNET)
    try:
        yield
    finally:
        ns.setns(home_fd, ns.CLONE_NEWNET)


def own_namespace() -> int:
    """A descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
