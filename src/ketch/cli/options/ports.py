"""Ports: values of ``--publish`` and ``--expose`` ↔ the API's maps."""

from __future__ import annotations

from ketch.cli.options import checks
from ketch.errors import InvalidArgument
from ketch.notation import digits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.notation.api_objects import ApiObject

    Binding = dict[str, str]


def publish(text: str) -> list[tuple[str, Binding]]:
    """``[ip:][host[-host]:]container[-container][/proto]`` → (port, binding) pairs (InvalidArgument otherwise)."""
    spec, _, proto = text.partition("/")
    proto = (proto or "tcp").lower()
    if proto not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid --publish `{text}`: unknown protocol `{proto}`")
    address, host, inside = _parts(spec, text)
    if address and not checks.is_address(address):
        raise InvalidArgument(f"invalid IP address: {address}")
    inner = _range(inside, "--publish")
    if inner[0] == 0:
        raise InvalidArgument(f"invalid --publish `{text}`: port 0 cannot be published")
    if not host:
        return [(f"{n}/{proto}", {"HostIp": address, "HostPort": ""}) for n in inner]
    outer = _range(host, "--publish")
    if len(outer) != len(inner):
        if len(inner) != 1:
            raise InvalidArgument(f"invalid --publish `{text}`: the two ranges have different lengths")
        return [(f"{inner[0]}/{proto}", {"HostIp": address, "HostPort": host})]
    return [(f"{n}/{proto}", {"HostIp": address, "HostPort": str(o)}) for n, o in zip(inner, outer, strict=True)]


def _parts(spec: str, text: str) -> tuple[str, str, str]:
    """Split into (address, ports of the host, ports of the container)."""
    if spec.startswith("["):
        address, bracket, rest = spec[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise InvalidArgument(f"invalid --publish `{text}`", hint="write [IPV6]:HOST:CONTAINER")
        host, _, inside = rest[1:].rpartition(":")
        return address, host, inside
    parts = spec.split(":")
    if len(parts) > 3:
        raise InvalidArgument(f"invalid --publish `{text}`", hint="write [IP:][HOST:]CONTAINER[/PROTOCOL]")
    return (parts[0] if len(parts) == 3 else ""), (parts[-2] if len(parts) > 1 else ""), parts[-1]


def text_of(port: str, binding: Binding) -> str:
    """A binding as ``--publish`` and Compose write it: ``127.0.0.1:8080:80/udp``."""
    number, _, proto = port.partition("/")
    inner = number if proto in ("", "tcp") else f"{number}/{proto}"
    address, host = binding.get("HostIp") or "", binding.get("HostPort") or ""
    if ":" in address:
        address = f"[{address}]"
    if address:
        return f"{address}:{host}:{inner}"
    return f"{host}:{inner}" if host else inner


def maps(published: list[str], exposed: list[str]) -> tuple[ApiObject, dict[str, list[Binding]]]:
    """``--publish`` and ``--expose`` → (ExposedPorts, PortBindings)."""
    open_ports: ApiObject = {}
    for text in exposed:
        numbers, _, proto = text.partition("/")
        open_ports.update({f"{n}/{proto or 'tcp'}": {} for n in _range(numbers, "--expose")})
    bindings: dict[str, list[Binding]] = {}
    for text in published:
        for port, binding in publish(text):
            open_ports[port] = {}
            bindings.setdefault(port, []).append(binding)
    return open_ports, bindings


def _range(text: str, what: str) -> range:
    first, dash, last = text.partition("-")
    begin, end = digits.whole(first), digits.whole(last if dash else first)
    if begin is None or end is None:
        raise InvalidArgument(f"invalid {what} `{text}`: not a port")
    span = range(begin, end + 1)
    if not span or span[-1] > 65535:
        raise InvalidArgument(f"invalid {what} `{text}`: ports go from 1 to 65535")
    return span
