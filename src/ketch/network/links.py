"""rtnetlink(7) requests for links, addresses and routes (IPv4), and the reading of the kernel's answers."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass

from ketch.network.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    Request,
    attr,
    attributes,
    nest,
    text,
    u8,
    u32,
)

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_GETROUTE = 26

IFF_UP = 0x1
LOOPBACK_INDEX = 1
IF_OPER_UP = 6

IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_MASTER = 10
IFLA_PROTINFO = 12
IFLA_OPERSTATE = 16
IFLA_LINKINFO = 18
IFLA_IFALIAS = 20
IFLA_STATS64 = 23
IFLA_AF_SPEC = 26
IFLA_NET_NS_FD = 28
IFLA_EXT_MASK = 29
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_BRPORT_MODE = 4
VETH_INFO_PEER = 1
IFLA_INET6_ADDR_GEN_MODE = 8
IN6_ADDR_GEN_MODE_NONE = 1
RTEXT_FILTER_SKIP_STATS = 8

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4

RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RT_TABLE_MAIN = 254
RTPROT_BOOT = 3
RT_SCOPE_UNIVERSE = 0
RTN_UNICAST = 1

# struct rtnl_link_stats64 begins with these eight counters.
_STATS = struct.Struct("=8Q")
STATS_NAMES = (
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
)


@dataclass(frozen=True)
class Link:
    """One network interface as the kernel describes it."""

    index: int
    name: str
    mac: bytes
    up: bool
    kind: str
    master: int
    mtu: int
    alias: str
    operstate: int
    stats: tuple[int, ...]


def ifinfo(index: int = 0, flags: int = 0, change: int = 0, family: int = socket.AF_UNSPEC) -> bytes:
    """``struct ifinfomsg``."""
    return struct.pack("=BxHiII", family, 0, index, flags, change)


def new_bridge(name: str, mac: bytes, mtu: int, alias: str) -> list[Request]:
    """Make a bridge that is up.  A fixed address keeps it from changing with the bridge's ports."""
    body = (
        ifinfo(0, IFF_UP, IFF_UP)
        + text(IFLA_IFNAME, name)
        + attr(IFLA_ADDRESS, mac)
        + u32(IFLA_MTU, mtu)
        + nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"))
    )
    return [Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"make bridge `{name}`"), *mark(name, alias)]


def mark(name: str, alias: str) -> list[Request]:
    """Give a link an alias: free text that says whose it is."""
    return [Request(RTM_NEWLINK, 0, ifinfo() + text(IFLA_IFNAME, name) + text(IFLA_IFALIAS, alias), f"mark `{name}`")]


def new_veth(name: str, master: int, mtu: int, *, peer: str, peer_mac: bytes, netns_fd: int) -> Request:
    """Make a veth pair whose peer appears directly in another namespace; this end is the bridge's, and still down."""
    peer_message = (
        ifinfo()
        + text(IFLA_IFNAME, peer)
        + attr(IFLA_ADDRESS, peer_mac)
        + u32(IFLA_MTU, mtu)
        + u32(IFLA_NET_NS_FD, netns_fd)
    )
    body = (
        ifinfo()
        + text(IFLA_IFNAME, name)
        + u32(IFLA_MTU, mtu)
        + u32(IFLA_MASTER, master)
        + nest(
            IFLA_LINKINFO,
            text(IFLA_INFO_KIND, "veth"),
            nest(IFLA_INFO_DATA, nest(VETH_INFO_PEER, peer_message)),
        )
    )
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"make veth `{name}`")


def hairpin(index: int) -> Request:
    """Let a bridge port send a frame back where it came from."""
    body = ifinfo(index, family=socket.AF_BRIDGE) + nest(IFLA_PROTINFO, u8(IFLA_BRPORT_MODE, 1))
    return Request(RTM_SETLINK, 0, body, "set hairpin mode")


def set_up(*, index: int = 0, name: str = "") -> Request:
    """Bring a link up, by index or by name."""
    body = ifinfo(index, IFF_UP, IFF_UP) + (text(IFLA_IFNAME, name) if name else b"")
    return Request(RTM_NEWLINK, 0, body, f"bring up `{name or index}`")


def no_ipv6_address(index: int) -> Request:
    """Keep the kernel from giving the link a link-local IPv6 address when it comes up (it may know no IPv6 at all)."""
    mode = nest(socket.AF_INET6, u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE))
    body = ifinfo(index) + nest(IFLA_AF_SPEC, mode)
    return Request(RTM_NEWLINK, 0, body, "turn off IPv6 address generation", tolerated=errno.EAFNOSUPPORT)


def delete_link(name: str) -> Request:
    """Delete a link; of a veth pair, both ends go."""
    return Request(RTM_DELLINK, 0, ifinfo() + text(IFLA_IFNAME, name), f"delete link `{name}`")


def add_address(index: int, address: ipaddress.IPv4Interface) -> Request:
    """Give a link an IPv4 address; the kernel adds the subnet's route."""
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _address(index, address), f"add address {address}")


def delete_address(index: int, address: ipaddress.IPv4Interface) -> Request:
    """Take an IPv4 address from a link."""
    return Request(RTM_DELADDR, 0, _address(index, address), f"delete address {address}")


def _address(index: int, address: ipaddress.IPv4Interface) -> bytes:
    packed = address.ip.packed
    return (
        struct.pack("=BBBBI", socket.AF_INET, address.network.prefixlen, 0, RT_SCOPE_UNIVERSE, index)
        + attr(IFA_LOCAL, packed)
        + attr(IFA_ADDRESS, packed)
        + attr(IFA_BROADCAST, address.network.broadcast_address.packed)
    )


def default_route(index: int, gateway: ipaddress.IPv4Address) -> Request:
    """Send everything that is not on the link to ``gateway``."""
    head = struct.pack(
        "=BBBBBBBBI", socket.AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0
    )
    body = head + attr(RTA_GATEWAY, gateway.packed) + u32(RTA_OIF, index)
    return Request(RTM_NEWROUTE, NLM_F_CREATE, body, f"add default route via {gateway}")


def get_link(rtnl: Netlink, name: str, *, stats: bool = False) -> Link:
    """One link by name; OSError(ENODEV) when there is none."""
    mask = b"" if stats else u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    body = rtnl.get(Request(RTM_GETLINK, 0, ifinfo() + text(IFLA_IFNAME, name) + mask, f"look up link `{name}`"))
    assert body is not None  # a link, or an error
    return _link(body)


def find_link(rtnl: Netlink, name: str) -> Link | None:
    """One link by name, or None."""
    return next((link for link in list_links(rtnl) if link.name == name), None)


def list_links(rtnl: Netlink) -> list[Link]:
    """Every link of the namespace."""
    body = ifinfo() + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    return [_link(b) for b in rtnl.dump(Request(RTM_GETLINK, 0, body, "list links"))]


def _link(body: bytes) -> Link:
    _, index, flags, _ = struct.unpack_from("=HxxiII", body)
    found = attributes(body[16:])
    info = attributes(found.get(IFLA_LINKINFO, b""))
    raw = found.get(IFLA_STATS64, b"")
    return Link(
        index=index,
        name=_string(found.get(IFLA_IFNAME)),
        mac=found.get(IFLA_ADDRESS, b""),
        up=bool(flags & IFF_UP),
        kind=_string(info.get(IFLA_INFO_KIND)),
        master=_number(found.get(IFLA_MASTER)),
        mtu=_number(found.get(IFLA_MTU)),
        alias=_string(found.get(IFLA_IFALIAS)),
        operstate=found.get(IFLA_OPERSTATE, b"\0")[0],
        stats=_STATS.unpack_from(raw) if len(raw) >= _STATS.size else (0,) * len(STATS_NAMES),
    )


def list_addresses(rtnl: Netlink) -> list[tuple[int, ipaddress.IPv4Interface]]:
    """Every IPv4 address of the namespace with its link's index."""
    result = []
    for body in rtnl.dump(Request(RTM_GETADDR, 0, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0), "list addresses")):
        family, prefix_len, _, _, index = struct.unpack_from("=BBBBI", body)
        found = attributes(body[8:])
        local = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
        if family == socket.AF_INET and local:
            result.append((index, ipaddress.IPv4Interface((local, prefix_len))))
    return result


def list_routes(rtnl: Netlink) -> list[tuple[int, ipaddress.IPv4Network]]:
    """Destinations of the main table's IPv4 routes (without the default one) with their links' indexes."""
    result = []
    for body in rtnl.dump(Request(RTM_GETROUTE, 0, struct.pack("=BBBBBBBBI", socket.AF_INET, *[0] * 8), "list routes")):
        family, prefix_len, _, _, table = struct.unpack_from("=BBBBB", body)
        found = attributes(body[12:])
        if family == socket.AF_INET and table == RT_TABLE_MAIN and prefix_len and RTA_DST in found:
            result.append((_number(found.get(RTA_OIF)), ipaddress.IPv4Network((found[RTA_DST], prefix_len))))
    return result


def _string(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")


def _number(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value else 0
