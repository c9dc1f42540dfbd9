"""Host ports of published ports, held by sockets.

The firewall redirects packets before any socket sees them, so publishing needs no listening program; but a port
that nobody has bound could be bound by another program later, which would then wait for connections that never
come.  So each published port is held by a socket of ours: bound, and listening only where the kernel cannot redirect
(``relay``).  It makes a port that is
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
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ketch.errors import KetchError, ResourceExhausted
from ketch.network.model.record import Binding
from ketch.network.ports import port_owners
from ketch.network.ports.relay import Relay
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from ketch.network.model.record import Endpoint
    from ketch.network.ports.outside import Outside
    from ketch.network.ports.requests import PortRequest

log = logging.getLogger(__name__)
T = TypeVar("T")

ANY = {4: "0.0.0.0", 6: "::"}
_LOOPBACK = ("::", "::1")  # who connects to ::1 gets to the socket
Key = tuple[str, str, int]
# How often to look for a number that is free in both families.
_TRIES = 16
_SO_ATTACH_FILTER = 26
_FIRST_PORT = "net/ipv4/ip_unprivileged_port_start"
_BPF_RET_0 = struct.pack("=HBBI", 0x06, 0, 0, 0)


class _Taken(Exception):
    """The reason why a port cannot be held."""


class HostPorts:
    """The ports held by this daemon; not thread-safe.  ``close`` releases all of them.

    With ``outside`` the host's ports are there, where no firewall redirects anything to bridges: all are relayed.
    """

    def __init__(self, outside: Outside | None = None) -> None:
        self._outside = outside
        self._held: dict[Key, tuple[socket.socket | None, str]] = {}
        self._relay = Relay()

    def reserve(
        self, requests: Iterable[PortRequest], owner: str = "", families: Sequence[int] = (4,), *, relayed: bool = False
    ) -> tuple[Binding, ...]:
        """Hold a host port for each request, or none of them (KetchError, worded as Docker does).

        A request without an address gets the same number in each of ``families``; one with an address of another
        family gets nothing.  ``owner`` is how errors name the container.  ``relayed``: the host's IPv6 ports, if it has
        IPv6, are for a container that has IPv4 alone.
        """
        both = (*families, 6) if relayed else families
        everywhere = both if relayed and self._there(_speaks_ipv6) else families
        bindings: list[Binding] = []
        try:
            for request in requests:
                if self._outside and request.proto == "sctp":
                    raise KetchError(
                        f"publish {request.container_port}/sctp: a rootless engine copies TCP and UDP alone",
                        hint="publish another protocol, or use root's engine",
                    )
                addresses = _addresses(request.host_ip, both if request.host_ip else everywhere)
                if relayed and request.proto == "sctp":
                    addresses = [a for a in addresses if ":" not in a]
                if addresses:
                    bindings += self._reserve(request, addresses, owner, relayed)
        except BaseException:
            self.release(bindings)
            raise
        return tuple(bindings)

    def release(self, bindings: Iterable[Binding]) -> None:
        """Release ports; unknown ones are ignored."""
        for binding in bindings:
            held, _ = self._held.pop(_key(binding), (None, ""))
            if held is not None:
                self._relay.stop(held)
                held.close()

    def reopen(self, bindings: Iterable[Binding], owner: str) -> None:
        """Hold the ports of a container that kept running during the daemon's restart; a lost one is logged."""
        for binding in bindings:
            if _key(binding) in self._held or not binding.host_port:
                continue
            try:
                held = self._there(_bind, binding.proto, binding.host_ip, binding.host_port)
            except OSError as e:
                held = None
                log.warning("hold published port %s:%d: %s", binding.host_ip, binding.host_port, e)
            self._held[_key(binding)] = held, owner

    def relay(self, endpoint: Endpoint) -> None:
        """Copy to the container what comes to its ports and the firewall cannot redirect."""
        for binding in endpoint.bindings:
            held, _ = self._held.get(_key(binding), (None, ""))
            redirected = not (self._outside or binding.relayed or binding.host_ip in _LOOPBACK)
            if held is None or binding.proto == "sctp" or redirected:
                continue
            target = endpoint.ip6 if ":" in binding.host_ip and not binding.relayed else endpoint.ip
            try:
                self._relay.serve(held, (target, binding.container_port))
            except OSError as e:
                host = f"[{binding.host_ip}]" if ":" in binding.host_ip else binding.host_ip
                raise KetchError(f"listen on {host}:{binding.host_port}: {e.strerror}") from e

    def stop_relay(self, bindings: Iterable[Binding]) -> None:
        """Stop copying; the ports stay held."""
        for binding in bindings:
            held, _ = self._held.get(_key(binding), (None, ""))
            if held is not None:
                self._relay.stop(held)

    def close(self) -> None:
        """Release all ports."""
        self._relay.close()
        for held, _ in self._held.values():
            if held is not None:
                held.close()
        self._held.clear()

    def _there(self, function: Callable[..., T], *args: Any) -> T:
        """The result of a call in the machine's namespace."""
        return self._outside.call(function, *args) if self._outside else function(*args)

    def _reserve(self, request: PortRequest, addresses: Sequence[str], owner: str, relayed: bool) -> list[Binding]:
        last = max(request.host_port, request.host_port_end)
        reason = ""
        for port in range(request.host_port, last + 1):
            for _ in range(_TRIES if port == 0 and len(addresses) > 1 else 1):
                try:
                    held = self._hold(request, addresses, port, owner)
                    return [msgspec.structs.replace(b, relayed=relayed and ":" in b.host_ip) for b in held]
                except _Taken as e:
                    reason = str(e)
        where = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
        where += f":{request.host_port}" + (f"-{last}" if last > request.host_port else "")
        if last > request.host_port:
            reason = f"all ports are allocated (the last: {reason})"
        raise KetchError(
            f"Bind for {where} failed: {reason}", hint="publish on another host port, or stop what uses this one"
        )

    def _hold(self, request: PortRequest, addresses: Sequence[str], port: int, owner: str) -> list[Binding]:
        """Hold one port number at all addresses (_Taken)."""
        held: dict[Binding, socket.socket | None] = {}
        with Undo() as undo:
            for address in addresses:
                self._check_free(request.proto, address, port)
                try:
                    sock = self._there(_bind, request.proto, address, port)
                except OSError as e:
                    raise _Taken(self._there(_reason, e, request.proto, address, port)) from e
                if sock is not None:
                    undo.callback(sock.close)
                    port = sock.getsockname()[1]
                elif not port:
                    raise _Taken("this kernel has no sockets of the protocol to choose a free port with: name one")
                held[Binding(request.proto, request.container_port, address, port)] = sock
            undo.pop_all()
        for binding, sock in held.items():
            self._held[_key(binding)] = sock, owner
        return list(held)

    def _check_free(self, proto: str, address: str, port: int) -> None:
        if not port:
            return
        for (other_proto, other_address, other_port), (_, owner) in self._held.items():
            if (other_proto, other_port) == (proto, port) and _overlap(address, other_address):
                raise _Taken(f"port is already allocated: container {owner} publishes it")


def _addresses(host_ip: str, families: Sequence[int]) -> list[str]:
    if not host_ip:
        return [ANY[version] for version in families]
    return [host_ip] if (6 if ":" in host_ip else 4) in families else []


def _overlap(address: str, other: str) -> bool:
    return address == other or (
        (":" in address) == (":" in other) and (address in ANY.values() or other in ANY.values())
    )


def _key(binding: Binding) -> Key:
    return binding.proto, binding.host_ip, binding.host_port


def _reason(error: OSError, proto: str, address: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        who = port_owners.program(proto, address, port) or "a program on this host"
        return f"port is already allocated: address already in use by {who}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise ResourceExhausted(
            f"hold a published port: {os.strerror(error.errno)}", hint="raise the daemon's limit of open files"
        ) from error
    if error.errno == errno.EACCES and port:
        return f"permission denied: this user may have ports from {_first_port()} on ({_FIRST_PORT.replace('/', '.')})"
    if error.errno == errno.EADDRNOTAVAIL:
        return "cannot assign requested address: it is not an address of this host"
    return os.strerror(error.errno or 0).lower()


def _first_port() -> str:
    """The first port that everybody may have, in the calling thread's network namespace."""
    with open(f"/proc/sys/{_FIRST_PORT}", encoding="ascii") as f:
        return f.read().strip()


def _bind(proto: str, host_ip: str, port: int) -> socket.socket | None:
    """A bound socket that holds a port; None where the kernel has no sockets of the protocol (SCTP)."""
    family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
    try:
        if proto == "udp":
            sock = socket.socket(family, socket.SOCK_DGRAM)
        else:
            sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP if proto == "sctp" else 0)
    except OSError as e:
        if proto == "sctp" and e.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None
        raise
    try:
        if proto == "udp":
            _drop_everything(sock)
        _keep_to_family(sock)
        sock.bind((host_ip, port))
    except OSError as e:
        sock.close()
        if proto == "tcp" and e.errno == errno.EADDRINUSE and port:
            return _bind_past_time_wait(family, host_ip, port)
        raise
    return sock


def _bind_past_time_wait(family: int, host_ip: str, port: int) -> socket.socket:
    """Bind a port that only ended or orphaned connections of an earlier server use.

    SO_REUSEADDR gets past those, but not past a program that listens.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _keep_to_family(sock)
        sock.bind((host_ip, port))
        # From here on nobody can share the port by setting the option, too.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError:
        sock.close()
        raise
    return sock


def _speaks_ipv6() -> bool:
    """Whether the host has IPv6: its loopback can be bound."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def _keep_to_family(sock: socket.socket) -> None:
    """An IPv6 socket takes no IPv4: each family is held, or not, on its own (ipv6(7))."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def _drop_everything(sock: socket.socket) -> None:
    """A filter that accepts no packet, so that a stray datagram never fills a buffer of ours."""
    program = create_string_buffer(_BPF_RET_0, len(_BPF_RET_0))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, addressof(program)))
