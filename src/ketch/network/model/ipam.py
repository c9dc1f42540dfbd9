"""Address management (IPAM): subnets for networks and addresses for containers, chosen among those that are free."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import InvalidArgument, PermissionDenied, ResourceExhausted, UnclassifiedArgument

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from ketch.linux.netlink.addresses import Address, Interface, Network
    from ketch.network.model.record import Pool

_MAX_POOLS = 4096
_MAC = re.compile(
    r"[0-9a-f]{2}(([-:])[0-9a-f]{2})(\2[0-9a-f]{2})+|[0-9a-f]{4}(\.[0-9a-f]{4})+", re.ASCII | re.IGNORECASE
)


class Base(NamedTuple):
    """A range that subnets of length ``size`` are cut from (``default-address-pools``)."""

    base: str
    size: int


# For networks whose creator names no subnet, in this order: Docker's thirty-odd, and then two thousand small ones.
DEFAULT_BASES = (
    *(Base(f"172.{i}.0.0/16", 16) for i in range(17, 32)),
    Base("192.168.0.0/16", 20),
    Base("10.200.0.0/13", 24),
)


def ula_base(seed: str) -> Base:
    """A /48 of unique local IPv6 addresses (RFC 4193) that is this engine's own, cut into /64s."""
    digest = hashlib.sha256(seed.encode()).digest()
    return Base(str(ipaddress.IPv6Network((b"\xfd" + digest[:5] + bytes(10), 48))), 64)


def candidates(bases: Iterable[Base], version: int = 4) -> Iterator[Network]:
    """The subnets of a family to choose from, best first."""
    for base in bases:
        whole = ipaddress.ip_network(base.base)
        if whole.version == version:
            yield from whole.subnets(new_prefix=base.size)


def choose_subnet(used: Iterable[Network], bases: Iterable[Base] = DEFAULT_BASES, version: int = 4) -> Network:
    """The first candidate that overlaps nothing in ``used``."""
    taken = [n for n in used if n.version == version]
    for tries, subnet in enumerate(candidates(bases, version)):
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
        if tries > _MAX_POOLS:
            break
    raise ResourceExhausted(
        f"could not find an available, non-overlapping IPv{version} address pool among the defaults to assign to the "
        "network",
        hint="name one with --subnet (the default network: --bip), or give the daemon more default-address-pools",
    )


def parse_subnet(text: str) -> ipaddress.IPv4Interface:
    """``172.28.0.1/16`` (the gateway's address) or ``172.28.0.0/16`` (then the gateway is the first)."""
    try:
        interface = ipaddress.IPv4Interface(text)
    except ValueError as e:
        raise InvalidArgument(f"invalid subnet `{text}`: {e}", hint="use e.g. 172.28.0.1/16") from e
    network = interface.network
    if "/" not in text or network.prefixlen > 29:
        raise InvalidArgument(f"invalid subnet `{text}`: it has no room for containers", hint="use a length of 8 to 29")
    if network.prefixlen < 8 or network.is_loopback or network.is_multicast:
        raise InvalidArgument(
            f"invalid subnet `{text}`: this host could not reach others any more, or itself",
            hint="use a private one, e.g. 172.28.0.1/16",
        )
    if interface.ip == network.network_address:
        return ipaddress.IPv4Interface((int(network[1]), network.prefixlen))
    if interface.ip == network.broadcast_address:
        raise InvalidArgument(f"invalid subnet `{text}`: the gateway is its broadcast address")
    return interface


def check_pools(pools: Sequence[Pool], *, ipv6: bool) -> list[Network]:
    """Check a user's subnets (InvalidArgument with all their faults); returns them."""
    wrong: list[str] = []
    subnets: list[Network] = []
    for pool in pools:
        interface = _block(pool.subnet)
        if interface is None:
            wrong.append(f"invalid subnet {pool.subnet}: invalid CIDR block notation")
            continue
        subnet = interface.network
        if subnet.version == 6 and not ipv6:
            continue
        if interface.ip != subnet.network_address:
            wrong.append(f"invalid subnet {pool.subnet}: it should be {subnet}")
            continue
        subnets.append(subnet)
        wrong += _wrong_with_range(pool.ip_range, subnet)
        wrong += _wrong_with_address("gateway", pool.gateway, subnet)
        for name, address in pool.aux.items():
            wrong += _wrong_with_address("auxiliary address", address, subnet, name)
    if wrong:
        raise InvalidArgument("invalid network config:\n" + "\n".join(wrong))
    return subnets


def _block(text: str) -> Interface | None:
    """An address with the length of its network (``10.0.0.0/8``); None for what is none, also to Go."""
    address, slash, length = text.partition("/")
    if not slash or not length.isdecimal() or str(int(length)) != length or "%" in address:
        return None
    try:
        return ipaddress.ip_interface(text)
    except ValueError:
        return None


def _wrong_with_range(text: str, subnet: Network) -> list[str]:
    if not text:
        return []
    interface = _block(text)
    if interface is None:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    inner = interface.network
    if inner.version != subnet.version:
        return [f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"]
    if interface.ip != inner.network_address:
        return [f"invalid ip-range {text}: it should be {inner}"]
    if inner.prefixlen < subnet.prefixlen:
        return [f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"]
    if not inner.subnet_of(subnet):  # type: ignore[arg-type]
        return [f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"]
    return []


def _wrong_with_address(what: str, text: str, subnet: Network, name: str = "") -> list[str]:
    if not text:
        return []
    shown = name or text
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [f"invalid {what} {shown}: invalid address"]
    if address.version != subnet.version:
        return [f"invalid {what} {shown}: parent subnet is an IPv{subnet.version} block"]
    if address not in subnet:
        return [f"invalid {what} {shown}: parent subnet {subnet} doesn't contain this address"]
    return []


class Allocator:
    """The addresses of one subnet that are in use; an address that was given back rests longest.

    ``last`` is the address (as an integer) given last.  Addresses are integers inside.
    """

    def __init__(self, pool: Pool, last: int = 0) -> None:
        self.pool = pool
        self.network = pool.network
        self._range: Network = ipaddress.ip_network(pool.ip_range) if pool.ip_range else self.network
        self._taken = {int(ipaddress.ip_address(a)) for a in (pool.gateway, *pool.aux.values()) if a}
        self.last = last

    def take(self, wanted: str = "") -> str:
        """Mark an address as used: the one that is wanted (InvalidArgument, PermissionDenied), or the next free one."""
        number = self._wanted(wanted) if wanted else self._next()
        self._taken.add(number)
        if not wanted:
            self.last = number
        return str(type(self.network.network_address)(number))

    def give_back(self, address: str) -> None:
        """Free an address."""
        self._taken.discard(int(ipaddress.ip_address(address)))

    def hold(self, address: str) -> None:
        """Mark an address as used by a stored endpoint."""
        self._taken.add(int(ipaddress.ip_address(address)))

    def _wanted(self, text: str) -> int:
        number = parse_address(text, self.network)
        if number in self._taken:
            raise PermissionDenied("Address already in use", hint=f"{text} is taken; leave it out to get a free one")
        return number

    def _next(self) -> int:
        return next_address(self.network, self._taken, self.last, self._range)


def next_address(network: Network, taken: Container[int], last: int, within: Network | None = None) -> int:
    """The first free host address after ``last``, round ``within`` (the whole subnet), as an integer."""
    within = within or network
    bottom, top = int(network.network_address), int(network.broadcast_address)
    if not _is_point(network):
        bottom, top = bottom + 1, top - (network.version == 4)
    first, end = max(bottom, int(within.network_address)), min(top, int(within.broadcast_address))
    start = last + 1 if first <= last < end else first
    for address in _ring(start, first, end):
        if address not in taken:
            return address
    raise ResourceExhausted(
        f"no available IPv{network.version} addresses on this network's address pools: {within}",
        hint="remove containers, or use a larger subnet",
    )


def _ring(start: int, first: int, last: int) -> Iterator[int]:
    yield from range(start, last + 1)
    yield from range(first, start)


def parse_address(text: str, network: Network) -> int:
    """A requested address as an integer; InvalidArgument unless a container can have it."""
    try:
        address = ipaddress.ip_address(unmapped(text))
    except ValueError as e:
        raise InvalidArgument(f"invalid IPv{network.version} address: {text}") from e
    if address in reserved(network):
        raise PermissionDenied("Address already in use", hint=f"{text} is the subnet's own, or its broadcast address")
    if address not in network:
        raise InvalidArgument(f"no configured subnet or ip-range contain the IP address {text}")
    return int(address)


def reserved(network: Network) -> tuple[Address, ...]:
    """The addresses that nobody can have: the subnet's own, and the broadcast address."""
    if _is_point(network):
        return ()
    return (network[0],) if network.version == 6 else (network[0], network[-1])


def _is_point(network: Network) -> bool:
    """Whether a subnet has addresses for hosts alone (RFC 3021)."""
    return network.version == 4 and network.prefixlen >= 31


def unmapped(text: str) -> str:
    """The address of IPv4 that one of IPv6 stands for (::ffff:10.0.0.1); others as they are."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(text)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
    return text


def contains(network: Network, text: str) -> bool:
    """Whether a text is an address of a subnet."""
    try:
        return ipaddress.ip_address(text) in network
    except ValueError:
        return False


def mac_for(address: Interface | str) -> bytes:
    """A locally administered address made from an IP address, so that a neighbour's cache entry never goes stale."""
    packed = ipaddress.ip_interface(address).ip.packed
    if len(packed) > 4:
        packed = hashlib.sha256(packed).digest()[:4]
    return b"\x02\x42" + packed


def check_mac(text: str) -> bytes:
    """A hardware address as bytes, in any of the forms and lengths that Go reads (InvalidArgument)."""
    if not _MAC.fullmatch(text) or len(packed := bytes.fromhex(re.sub("[-:.]", "", text))) not in (6, 8, 20):
        raise InvalidArgument(f"invalid MAC address {text}", hint="use e.g. 02:42:ac:11:00:02")
    return packed


def parse_mac(text: str) -> bytes:
    """``02:42:ac:1c:00:02`` → six bytes; UnclassifiedArgument unless an interface can have it."""
    packed = check_mac(text)
    if len(packed) != 6 or packed[0] & 1 or not any(packed):
        raise UnclassifiedArgument(
            f"set MAC address {text}: cannot assign requested address", hint="use a unicast one, of six bytes"
        )
    return packed


def format_mac(packed: bytes) -> str:
    """Six bytes → ``02:42:ac:1c:00:02``."""
    return packed.hex(":")
