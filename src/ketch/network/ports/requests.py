"""Published ports as requested: Docker's ``PortBindings``, ``ExposedPorts``, ``PublishAllPorts`` → `PortRequest`."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROTOCOLS = ("tcp", "udp", "sctp")
_MAX_PORT = 65535


class PortRequest(Struct, frozen=True):
    """One container port to publish.

    ``host_ip`` is an address of the host; 0.0.0.0 and :: are all of a family, empty: all of both.  ``host_port`` 0 asks
    for any free port; ``host_port_end`` above ``host_port`` asks for the first free one of that range (both ends
    included).
    """

    proto: str
    container_port: int
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0

    @property
    def key(self) -> str:
        """Docker's name of the container's side: ``80/tcp``."""
        return f"{self.container_port}/{self.proto}"


def requests(
    port_bindings: Mapping[str, Any] | None,
    exposed_ports: Mapping[str, Any] | None,
    publish_all: bool,
) -> list[PortRequest]:
    """Everything that a container wants published, in a stable order; InvalidArgument says which port is wrong.

    A port that is only exposed is published (to any free host port) when ``publish_all`` is set; a binding always is.
    """
    result: list[PortRequest] = []
    bound: set[tuple[int, str]] = set()
    for key, bindings in (port_bindings or {}).items():
        first, last, proto = parse_port_key(key)
        for binding in bindings or ():
            result += _expand(first, last, proto, binding)
            bound.update((port, proto) for port in range(first, last + 1))
    if publish_all:
        for key in (*(exposed_ports or {}), *(port_bindings or {})):
            first, last, proto = parse_port_key(key)
            for port in range(first, last + 1):
                if (port, proto) not in bound:
                    bound.add((port, proto))
                    result.append(PortRequest(proto, port))
    return list(dict.fromkeys(sorted(result, key=lambda r: (r.proto, r.container_port, r.host_ip, r.host_port))))


def names(keys: Iterable[str]) -> list[str]:
    """The ports of Docker's keys by their one name, each once: of ``80``, ``80/TCP`` and ``80-81/tcp`` the two.

    What an image has there that is no port is left out.
    """
    found: dict[str, None] = {}
    for key in keys:
        try:
            first, last, proto = parse_port_key(key)
        except InvalidArgument:
            continue
        found.update(dict.fromkeys(f"{port}/{proto}" for port in range(first, last + 1)))
    return list(found)


def parse_port_key(key: str) -> tuple[int, int, str]:
    """``"80/tcp"``, ``"80"``, ``"8000-8010/udp"`` → first, last, protocol."""
    ports, _, proto = key.partition("/")
    proto = proto.lower() or "tcp"
    if proto not in PROTOCOLS:
        raise InvalidArgument(f"invalid port `{key}`: unknown protocol `{proto}`", hint="use tcp, udp or sctp")
    first, last = parse_range(ports, key)
    if first == 0:
        raise InvalidArgument(f"invalid port `{key}`: a container port is 1 to {_MAX_PORT}")
    return first, last, proto


def parse_range(text: str, context: str = "") -> tuple[int, int]:
    """``"80"`` → (80, 80), ``"80-90"`` → (80, 90); ``context`` is what an error message quotes."""
    context = context or text
    low, dash, high = text.partition("-")
    if not _is_port(low) or (dash and not _is_port(high)):
        raise InvalidArgument(
            f"invalid port `{context}`", hint=f"a port is a number from 0 to {_MAX_PORT}, or FIRST-LAST"
        )
    first, last = int(low), int(high) if dash else int(low)
    if last < first:
        raise InvalidArgument(f"invalid port `{context}`: the range ends before it begins")
    return first, last


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= _MAX_PORT


def _expand(first: int, last: int, proto: str, binding: Mapping[str, str]) -> list[PortRequest]:
    host_ip = parse_host_ip(str(binding.get("HostIp") or ""))
    host_text = str(binding.get("HostPort") or "").partition("/")[0]
    if host_text in ("", "0"):
        return [PortRequest(proto, port, host_ip) for port in range(first, last + 1)]
    low, high = parse_range(host_text)
    if low == 0:
        raise InvalidArgument(f"invalid host port `{host_text}`", hint="leave it out to get any free port")
    if first == last:
        return [PortRequest(proto, first, host_ip, low, high)]
    if high - low != last - first:
        raise InvalidArgument(
            f"invalid ranges specified for container and host ports: {first}-{last} and {host_text}",
            hint="both ranges must have the same length",
        )
    return [PortRequest(proto, first + i, host_ip, low + i, low + i) for i in range(last - first + 1)]


def parse_host_ip(text: str) -> str:
    """A binding's host address; empty (all of the host's) stays empty."""
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError as e:
        raise InvalidArgument(f"invalid IP address `{text}` in a published port", hint="use e.g. 127.0.0.1") from e
    return str(address)
