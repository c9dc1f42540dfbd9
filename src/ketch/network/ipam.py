"""Which subnet, which address: pure functions over what is taken."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

# Where a daemon without a configured subnet looks, in this order; Docker's own default (172.17/16) comes late.
_POOL = (*(f"172.{i}" for i in (28, 29, 30, 31, *range(27, 16, -1))), *(f"10.{i}" for i in range(200, 220)))


def candidates() -> Iterator[ipaddress.IPv4Network]:
    """The subnets to choose from, best first."""
    for prefix in _POOL:
        yield ipaddress.IPv4Network(f"{prefix}.0.0/16")
    yield from ipaddress.IPv4Network("192.168.0.0/16").subnets(new_prefix=20)


def choose_subnet(used: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Interface:
    """The first candidate that overlaps nothing in ``used``, as the gateway's address in it."""
    taken = list(used)
    for subnet in candidates():
        if not any(subnet.overlaps(other) for other in taken):
            return gateway_in(subnet)
    raise ResourceExhausted(
        "choose a subnet for containers: every candidate overlaps a network of this host",
        hint="give one with --bip ADDRESS/LENGTH",
    )


def gateway_in(subnet: ipaddress.IPv4Network) -> ipaddress.IPv4Interface:
    """The first address of a subnet: its gateway."""
    return ipaddress.IPv4Interface((int(subnet.network_address) + 1, subnet.prefixlen))


def parse_subnet(text: str) -> ipaddress.IPv4Interface:
    """``172.28.0.1/16`` (the gateway's address) or ``172.28.0.0/16`` (then the gateway is the first)."""
    try:
        interface = ipaddress.IPv4Interface(text)
    except ValueError as e:
        raise InvalidArgument(f"invalid subnet `{text}`: {e}", hint="use e.g. 172.28.0.1/16") from e
    network = interface.network
    if "/" not in text or network.prefixlen > 29:
        raise InvalidArgument(f"invalid subnet `{text}`: it has no room for containers", hint="use a length of 8 to 29")
    if interface.ip == network.network_address:
        return gateway_in(network)
    if interface.ip == network.broadcast_address:
        raise InvalidArgument(f"invalid subnet `{text}`: the gateway is its broadcast address")
    return interface


def next_address(network: ipaddress.IPv4Network, taken: Container[int], last: int) -> int:
    """The first free host address after ``last``, round the subnet; an address that was just given back rests longest.

    ``taken`` holds addresses as integers and includes the gateway's.
    """
    first_host, last_host = int(network.network_address) + 1, int(network.broadcast_address) - 1
    start = last + 1 if first_host <= last < last_host else first_host
    for address in _ring(start, first_host, last_host):
        if address not in taken:
            return address
    raise ResourceExhausted(
        f"no available IPv4 addresses on this network's address pools: {network}",
        hint="remove containers, or give the daemon a larger subnet with --bip",
    )


def _ring(start: int, first: int, last: int) -> Iterator[int]:
    yield from range(start, last + 1)
    yield from range(first, start)


def parse_address(text: str, network: ipaddress.IPv4Network) -> int:
    """A requested address as an integer; InvalidArgument unless a container can have it."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as e:
        raise InvalidArgument(f"invalid IPv4 address `{text}`") from e
    if address not in network or address in (network.network_address, network.broadcast_address):
        raise InvalidArgument(
            f"invalid address {text}: It does not belong to any of this network's subnets ({network})"
        )
    return int(address)


def mac_for(address: int) -> bytes:
    """A locally administered address made from the IPv4 address, so that a neighbour's ARP entry never goes stale."""
    return b"\x02\x42" + address.to_bytes(4, "big")


def parse_mac(text: str) -> bytes:
    """``02:42:ac:1c:00:02`` → six bytes; InvalidArgument unless it is a unicast address."""
    parts = text.replace("-", ":").split(":")
    try:
        if len(parts) != 6 or any(len(p) != 2 for p in parts):
            raise ValueError
        packed = bytes(int(p, 16) for p in parts)
    except ValueError as e:
        raise InvalidArgument(f"invalid MAC address `{text}`", hint="use e.g. 02:42:ac:11:00:02") from e
    if packed[0] & 1 or not any(packed):
        raise InvalidArgument(f"invalid MAC address `{text}`: it is not a unicast address")
    return packed


def format_mac(packed: bytes) -> str:
    """Six bytes → ``02:42:ac:1c:00:02``."""
    return packed.hex(":")
