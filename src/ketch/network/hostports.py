"""Host ports that are taken by published ports.

The firewall redirects packets before any socket sees them, so publishing needs no listening program; but a port
that nobody has bound could be bound by another program later, which would then wait for connections that never
come.  So each published port is held by a socket of ours: bound, never listening.  It makes a port that is
already in use an error at the right moment, keeps later programs (and other engines) out, and keeps the kernel from
choosing the port for an outgoing connection.  The sockets die with the daemon and are opened again when it
returns; the containers' traffic does not depend on them.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from ctypes import addressof, create_string_buffer
from typing import TYPE_CHECKING

from ketch.errors import KetchError, ResourceExhausted
from ketch.network.endpoint import Binding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.network.ports import PortRequest

log = logging.getLogger(__name__)

ANY = "0.0.0.0"
_SO_ATTACH_FILTER = 26
_BPF_RET_0 = struct.pack("=HBBI", 0x06, 0, 0, 0)


class HostPorts:
    """The ports held by this daemon; not thread-safe.  ``close`` gives all of them back."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str, int], socket.socket | None] = {}

    def reserve(
        self, requests: Iterable[PortRequest], owner: str = "", families: tuple[int, ...] = (4,)
    ) -> tuple[Binding, ...]:
        """Hold a host port for each request, or none of them (KetchError, worded as Docker does)."""
        bindings: list[Binding] = []
        try:
            for request in requests:
                bindings.append(self._reserve(request))  # noqa: PERF401 (what was done must be undone)
        except BaseException:
            self.release(bindings)
            raise
        return tuple(bindings)

    def release(self, bindings: Iterable[Binding]) -> None:
        """Give ports back; unknown ones are ignored."""
        for binding in bindings:
            held = self._held.pop(_key(binding), None)
            if held is not None:
                held.close()

    def reopen(self, bindings: Iterable[Binding]) -> None:
        """Hold again what a container has published since before a restart of the daemon; a lost port is logged."""
        for binding in bindings:
            if _key(binding) in self._held:
                continue
            try:
                self._held[_key(binding)] = _bind(binding.proto, binding.host_ip, binding.host_port)
            except OSError as e:
                self._held[_key(binding)] = None
                log.warning("hold published port %s:%d: %s", binding.host_ip, binding.host_port, e)

    def close(self) -> None:
        """Give everything back."""
        for held in self._held.values():
            if held is not None:
                held.close()
        self._held.clear()

    def _reserve(self, request: PortRequest) -> Binding:
        last = max(request.host_port, request.host_port_end)
        where = f"{request.host_ip}:{request.host_port}" + (f"-{last}" if last > request.host_port else "")
        reason = ""
        for port in range(request.host_port, last + 1):
            if self._is_ours(request.proto, request.host_ip, port):
                reason = "port is already allocated"
                continue
            try:
                held = _bind(request.proto, request.host_ip, port)
            except OSError as e:
                reason = _reason(e)
                continue
            port = held.getsockname()[1] if held is not None else port
            binding = Binding(request.proto, request.container_port, request.host_ip, port)
            self._held[_key(binding)] = held
            return binding
        if last > request.host_port:
            reason = "all ports are allocated"
        raise KetchError(
            f"Bind for {where} failed: {reason}", hint="publish on another host port, or stop what uses this one"
        )

    def _is_ours(self, proto: str, host_ip: str, port: int) -> bool:
        if port == 0:
            return False
        if host_ip == ANY:
            return any(p == proto and n == port for p, _, n in self._held)
        return (proto, host_ip, port) in self._held or (proto, ANY, port) in self._held


def _key(binding: Binding) -> tuple[str, str, int]:
    return binding.proto, binding.host_ip, binding.host_port


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "port is already allocated: address already in use by a program on this host"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise ResourceExhausted(
            f"hold a published port: {os.strerror(error.errno)}", hint="raise the daemon's limit of open files"
        ) from error
    if error.errno == errno.EADDRNOTAVAIL:
        return "cannot assign requested address: it is not an address of this host"
    return os.strerror(error.errno or 0).lower()


def _bind(proto: str, host_ip: str, port: int) -> socket.socket | None:
    """A bound socket that serves nobody; None where the kernel has no sockets of the protocol (SCTP)."""
    try:
        if proto == "udp":
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        else:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP if proto == "sctp" else 0)
    except OSError as e:
        if proto == "sctp" and e.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None
        raise
    try:
        if proto == "udp":
            _drop_everything(sock)
        sock.bind((host_ip, port))
    except OSError as e:
        sock.close()
        if proto == "tcp" and e.errno == errno.EADDRINUSE and port:
            return _bind_past_time_wait(host_ip, port)
        raise
    return sock


def _bind_past_time_wait(host_ip: str, port: int) -> socket.socket:
    """Bind where only ended or orphaned connections of an earlier server are in the way.

    SO_REUSEADDR gets past those, but not past a program that listens.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host_ip, port))
        # From here on nobody can share the port by setting the option, too.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError:
        sock.close()
        raise
    return sock


def _drop_everything(sock: socket.socket) -> None:
    """A filter that accepts no packet, so that a stray datagram never fills a buffer of ours."""
    program = create_string_buffer(_BPF_RET_0, len(_BPF_RET_0))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, addressof(program)))
