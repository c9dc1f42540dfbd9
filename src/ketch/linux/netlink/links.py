"""rtnetlink(7) requests for links, addresses and routes, and the reading of the kernel's answers."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from ketch.linux.netlink.client import NLM_F_CREATE, NLM_F_EXCL, Netlink, Request, attr, attributes, nest, text, u8, u32

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
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
IFLA_NET_NS_FD = 28
IFLA_EXT_MASK = 29
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_BRPORT_MODE = 4
IFLA_BRPORT_ISOLATED = 33
VETH_INFO_PEER = 1
RTEXT_FILTER_SKIP_STATS = 8

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4
IFA_F_NODAD = 0x02

RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RT_TABLE_MAIN = 254
RTPROT_BOOT = 3
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTN_UNICAST = 1

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

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


class Link:
    """One network interface as the kernel describes it."""

    __slots__ = ("alias", "index", "kind", "mac", "master", "mtu", "name", "operstate", "stats", "up")

    def __init__(
        self, *, index: int, name: str, mac: bytes, up: bool, kind: str, master: int, mtu: int, alias: str,
        operstate: int, stats: tuple[int, ...],
    ) -> None:  # fmt: skip
        self.index, self.name, self.mac, self.up, self.kind = index, name, mac, up, kind
        self.master, self.mtu, self.alias, self.operstate, self.stats = master, mtu, alias, operstate, stats


def ifinfo(index: int = 0, flags: int = 0, change: int = 0, family: int = socket.AF_UNSPEC) -> bytes:
    """``struct ifinfomsg``."""
    return struct.pack("=BxHiII", family, 0, index, flags, change)


def new_bridge(name: str, mac: bytes, mtu: int, alias: str) -> list[Request]:
    """Make a bridge that is down.  A fixed address keeps it from changing with the bridge's ports."""
    body = (
        ifinfo()
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


def isolate(index: int) -> Request:
    """Keep a bridge port from exchanging frames with the bridge's other isolated ports (not with the host)."""
    body = ifinfo(index, family=socket.AF_BRIDGE) + nest(IFLA_PROTINFO, u8(IFLA_BRPORT_ISOLATED, 1))
    return Request(RTM_SETLINK, 0, body, "isolate a bridge port")


def set_up(*, index: int = 0, name: str = "", alias: str = "") -> Request:
    """Bring a link up, by index or by name, and mark it."""
    body = ifinfo(index, IFF_UP, IFF_UP) + (text(IFLA_IFNAME, name) if name else b"")
    body += text(IFLA_IFALIAS, alias) if alias else b""
    return Request(RTM_NEWLINK, 0, body, f"bring up `{name or index}`")


def set_master(index: int, master: int) -> Request:
    """Attach a link to a bridge."""
    return Request(RTM_NEWLINK, 0, ifinfo(index) + u32(IFLA_MASTER, master), f"attach link {index} to bridge {master}")


def set_mtu(index: int, mtu: int) -> Request:
    """Change the size of a link's packets."""
    return Request(RTM_NEWLINK, 0, ifinfo(index) + u32(IFLA_MTU, mtu), f"set the MTU of link {index} to {mtu}")


def delete_link(name: str) -> Request:
    """Delete a link; of a veth pair, both ends go."""
    return Request(RTM_DELLINK, 0, ifinfo() + text(IFLA_IFNAME, name), f"delete link `{name}`")


def add_address(index: int, address: Interface) -> Request:
    """Give a link an address; the kernel adds the subnet's route.  An IPv6 address is usable at once (no DAD)."""
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _address(index, address), f"add address {address}")


def delete_address(index: int, address: Interface) -> Request:
    """Take an address from a link."""
    return Request(RTM_DELADDR, 0, _address(index, address), f"delete address {address}")


def _address(index: int, address: Interface) -> bytes:
    packed = address.ip.packed
    flags = IFA_F_NODAD if address.version == 6 else 0
    head = struct.pack("=BBBBI", _FAMILY[address.version], address.network.prefixlen, flags, RT_SCOPE_UNIVERSE, index)
    body = head + attr(IFA_LOCAL, packed) + attr(IFA_ADDRESS, packed)
    return body + attr(IFA_BROADCAST, address.network.broadcast_address.packed) if address.version == 4 else body


def default_route(index: int, gateway: Address) -> Request:
    """Send everything that is not on the link to ``gateway``."""
    return Request(RTM_NEWROUTE, NLM_F_CREATE, _default(index, gateway), f"add default route via {gateway}")


def device_route(index: int, family: int) -> Request:
    """Send everything of a family (4 or 6) that is not elsewhere out of the link."""
    return Request(RTM_NEWROUTE, NLM_F_CREATE, _default(index, None, family), "add default route")


def delete_default_route(index: int, gateway: Address) -> Request:
    """Undo `default_route`; one that is not there (any more) is no error."""
    what = f"delete default route via {gateway}"
    return Request(RTM_DELROUTE, 0, _default(index, gateway), what, tolerated=errno.ESRCH)


def _default(index: int, gateway: Address | None, family: int = 0) -> bytes:
    scope = RT_SCOPE_UNIVERSE if gateway is not None or family == 6 else RT_SCOPE_LINK
    version = gateway.version if gateway is not None else family
    head = struct.pack(
        "=BBBBBBBBI", _FAMILY[version], 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0
    )  # fmt: skip
    via = attr(RTA_GATEWAY, gateway.packed) if gateway is not None else b""
    return head + via + u32(RTA_OIF, index)


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
    return [(i, a) for i, a in list_all_addresses(rtnl) if isinstance(a, ipaddress.IPv4Interface)]


def list_all_addresses(rtnl: Netlink) -> list[tuple[int, Interface]]:
    """Every address of the namespace, of both families, with its link's index."""
    result: list[tuple[int, Interface]] = []
    body = struct.pack("=BBBBI", socket.AF_UNSPEC, 0, 0, 0, 0)
    for answer in rtnl.dump(Request(RTM_GETADDR, 0, body, "list addresses")):
        family, prefix_len, _, _, index = struct.unpack_from("=BBBBI", answer)
        found = attributes(answer[8:])
        local = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
        if family == socket.AF_INET and local:
            result.append((index, ipaddress.IPv4Interface((local, prefix_len))))
        elif family == socket.AF_INET6 and local:
            result.append((index, ipaddress.IPv6Interface((local, prefix_len))))
    return result


def list_routes(rtnl: Netlink) -> list[tuple[int, Network]]:
    """Destinations of the main table's routes (without the default ones) with their links' indexes."""
    result: list[tuple[int, Network]] = []
    head = struct.pack("=BBBBBBBBI", socket.AF_UNSPEC, *[0] * 8)
    for body in rtnl.dump(Request(RTM_GETROUTE, 0, head, "list routes")):
        family, prefix_len, _, _, table = struct.unpack_from("=BBBBB", body)
        found = attributes(body[12:])
        if table != RT_TABLE_MAIN or not prefix_len or RTA_DST not in found:
            continue
        if family == socket.AF_INET:
            result.append((_number(found.get(RTA_OIF)), ipaddress.IPv4Network((found[RTA_DST], prefix_len))))
        elif family == socket.AF_INET6:
            result.append((_number(found.get(RTA_OIF)), ipaddress.IPv6Network((found[RTA_DST], prefix_len))))
    return result


def _string(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")


def _number(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value else 0
