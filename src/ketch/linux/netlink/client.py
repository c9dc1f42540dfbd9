"""A small netlink(7) client: acknowledged batches, dumps, sockets in other namespaces.

The kernel works through a batch inside ``sendmsg``, so all answers are waiting when it returns: nothing here
ever blocks for long, and several requests cost one round trip.  A general netlink library would take more time
to import than a whole container takes to start.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

from ketch.linux import ns
from ketch.linux.netlink import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from ketch.linux.netlink.messages import NetlinkRequest

    T = TypeVar("T")

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_RECEIVE_BYTES = 1 << 16
_NLM_F_DUMP_INTR = 0x10
_DUMP_ATTEMPTS = 5


class Netlink:
    """One socket; not thread-safe.  ``fd`` (of a netlink socket, maybe of another namespace) is duplicated.

    Without ``fd`` the socket belongs to the calling thread's network namespace.  ``close`` is the caller's.
    """

    def __init__(self, fd: int | None = None, protocol: int = NETLINK_ROUTE) -> None:
        if fd is None:
            self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        else:
            self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol, fileno=os.dup(fd))
        self._sock.setblocking(True)
        self._sock.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._sock.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._seq = 0

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close this duplicate of the socket."""
        self._sock.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, requests: Sequence[NetlinkRequest]) -> None:
        """Send all in one batch; raise OSError for the first that failed (the kernel tries the others all the same)."""
        if requests:
            self._transact(requests)

    def get(self, request: NetlinkRequest) -> bytes | None:
        """The body of the one object asked for; None when the kernel answers nothing but "done"."""
        bodies = self._transact([request])
        return bodies[0] if bodies else None

    def dump(self, request: NetlinkRequest) -> Iterator[bytes]:
        """Every object's body, read to the end first; asked again when the table changed meanwhile."""
        for _ in range(_DUMP_ATTEMPTS):
            bodies, interrupted = self._dump(request)
            if not interrupted:
                break
        return iter(bodies)

    def _dump(self, request: NetlinkRequest) -> tuple[list[bytes], bool]:
        self._seq += 1
        self._sock.send(messages.encode(request, self._seq, messages.NLM_F_REQUEST | messages.NLM_F_DUMP))
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, seq, body in messages.split(self._sock.recv(_RECEIVE_BYTES)):
                if seq != self._seq:
                    continue
                interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
                if kind == messages.NLMSG_ERROR:
                    messages.raise_for(body, flags, request)
                if kind in (messages.NLMSG_DONE, messages.NLMSG_ERROR):
                    return bodies, interrupted
                bodies.append(body)

    def _transact(self, requests: Sequence[NetlinkRequest]) -> list[bytes]:
        first = self._seq + 1
        packets = []
        for request in requests:
            self._seq += 1
            packets.append(messages.encode(request, self._seq, messages.NLM_F_REQUEST | messages.NLM_F_ACK))
        self._sock.send(b"".join(packets))
        pending = set(range(first, self._seq + 1))
        bodies: list[bytes] = []
        failure: OSError | None = None
        while pending:
            for kind, flags, seq, body in messages.split(self._sock.recv(_RECEIVE_BYTES)):
                if seq not in pending:
                    continue
                if kind != messages.NLMSG_ERROR:
                    bodies.append(body)
                    continue
                pending.discard(seq)
                try:
                    messages.raise_for(body, flags, requests[seq - first])
                except OSError as e:
                    failure = failure or e
        if failure is not None:
            raise failure
        return bodies


def open_in(netns_fd: int, protocol: int = NETLINK_ROUTE) -> Netlink:
    """A socket in another network namespace (OSError)."""
    return in_namespace(netns_fd, lambda: Netlink(protocol=protocol))


@contextlib.contextmanager
def entered(netns_fd: int) -> Iterator[None]:
    """A context in another network namespace for the calling thread; nothing in it may block."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        ns.setns(netns_fd, ns.CLONE_NEWNET)
        try:
            yield
        finally:
            ns.setns(home, ns.CLONE_NEWNET)
    finally:
        os.close(home)


def in_namespace(netns_fd: int, make: Callable[[], T]) -> T:
    """The result of ``make`` in another network namespace, in a short-lived thread (setns(2) moves a thread).

    Raises the OSError of entering or making.
    """
    made: list[T] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            ns.setns(netns_fd, ns.CLONE_NEWNET)
            made.append(make())
        except OSError as e:
            failed.append(e)

    thread = threading.Thread(target=enter, name="setns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]
