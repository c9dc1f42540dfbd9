"""rtnetlink(7) requests for links, and the reading of the kernel's answers."""

from __future__ import annotations

import struct
from _socket import AF_BRIDGE, AF_UNSPEC

from ketch.linux.netlink.messages import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NetlinkRequest,
    attr,
    attributes,
    nest,
    number,
    string,
    text,
    u8,
    u32,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.linux.netlink.client import Netlink

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19


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


class NetworkLink:
    """One network interface, as the kernel's message describes it."""

    __slots__ = ("alias", "index", "kind", "mac", "master", "mtu", "name", "operstate", "stats", "up")

    def __init__(self, body: bytes) -> None:
        _, self.index, flags, _ = struct.unpack_from("=HxxiII", body)
        found = attributes(body[16:])
        self.up = bool(flags & IFF_UP)
        self.name = string(found.get(IFLA_IFNAME))
        self.mac = found.get(IFLA_ADDRESS, b"")
        self.kind = string(attributes(found.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND))
        self.master = number(found.get(IFLA_MASTER))
        self.mtu = number(found.get(IFLA_MTU))
        self.alias = string(found.get(IFLA_IFALIAS))
        self.operstate = found.get(IFLA_OPERSTATE, b"\0")[0]
        raw = found.get(IFLA_STATS64, b"")
        self.stats: tuple[int, ...] = _STATS.unpack_from(raw) if len(raw) >= _STATS.size else (0,) * len(STATS_NAMES)


def ifinfo(index: int = 0, flags: int = 0, change: int = 0, family: int = AF_UNSPEC) -> bytes:
    """``struct ifinfomsg``."""
    return struct.pack("=BxHiII", family, 0, index, flags, change)


def new_bridge(name: str, mac: bytes, mtu: int, alias: str) -> list[NetlinkRequest]:
    """Make a bridge that is down.  A fixed address keeps it from changing with the bridge's ports."""
    body = (
        ifinfo()
        + text(IFLA_IFNAME, name)
        + attr(IFLA_ADDRESS, mac)
        + u32(IFLA_MTU, mtu)
        + nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"))
    )
    return [NetlinkRequest(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"make bridge `{name}`"), *mark(name, alias)]


def mark(name: str, alias: str) -> list[NetlinkRequest]:
    """Give a link an alias, which marks its owner."""
    return [
        NetlinkRequest(RTM_NEWLINK, 0, ifinfo() + text(IFLA_IFNAME, name) + text(IFLA_IFALIAS, alias), f"mark `{name}`")
    ]


def new_veth(name: str, master: int, mtu: int, *, peer: str, peer_mac: bytes, netns_fd: int) -> NetlinkRequest:
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
    return NetlinkRequest(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"make veth `{name}`")


def hairpin(index: int) -> NetlinkRequest:
    """Let a bridge port send a frame back where it came from."""
    body = ifinfo(index, family=AF_BRIDGE) + nest(IFLA_PROTINFO, u8(IFLA_BRPORT_MODE, 1))
    return NetlinkRequest(RTM_SETLINK, 0, body, "set hairpin mode")


def isolate(index: int) -> NetlinkRequest:
    """Keep a bridge port from exchanging frames with the bridge's other isolated ports (not with the host)."""
    body = ifinfo(index, family=AF_BRIDGE) + nest(IFLA_PROTINFO, u8(IFLA_BRPORT_ISOLATED, 1))
    return NetlinkRequest(RTM_SETLINK, 0, body, "isolate a bridge port")


def set_up(*, index: int = 0, name: str = "", alias: str = "") -> NetlinkRequest:
    """Bring a link up, by index or by name, and mark it."""
    body = ifinfo(index, IFF_UP, IFF_UP) + (text(IFLA_IFNAME, name) if name else b"")
    body += text(IFLA_IFALIAS, alias) if alias else b""
    return NetlinkRequest(RTM_NEWLINK, 0, body, f"bring up `{name or index}`")


def set_master(index: int, master: int) -> NetlinkRequest:
    """Attach a link to a bridge."""
    return NetlinkRequest(
        RTM_NEWLINK, 0, ifinfo(index) + u32(IFLA_MASTER, master), f"attach link {index} to bridge {master}"
    )


def set_mtu(index: int, mtu: int) -> NetlinkRequest:
    """Change a link's MTU."""
    return NetlinkRequest(RTM_NEWLINK, 0, ifinfo(index) + u32(IFLA_MTU, mtu), f"set the MTU of link {index} to {mtu}")


def delete_link(name: str) -> NetlinkRequest:
    """Delete a link; of a veth pair, both ends go."""
    return NetlinkRequest(RTM_DELLINK, 0, ifinfo() + text(IFLA_IFNAME, name), f"delete link `{name}`")


def get_link(rtnl: Netlink, name: str, *, stats: bool = False) -> NetworkLink:
    """One link by name; OSError(ENODEV) when there is none."""
    mask = b"" if stats else u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    body = rtnl.get(NetlinkRequest(RTM_GETLINK, 0, ifinfo() + text(IFLA_IFNAME, name) + mask, f"look up link `{name}`"))
    assert body is not None  # a link, or an error
    return NetworkLink(body)


def find_link(rtnl: Netlink, name: str) -> NetworkLink | None:
    """One link by name, or None."""
    return next((link for link in list_links(rtnl) if link.name == name), None)


def list_links(rtnl: Netlink) -> list[NetworkLink]:
    """Every link of the namespace."""
    body = ifinfo() + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    return [NetworkLink(b) for b in rtnl.dump(NetlinkRequest(RTM_GETLINK, 0, body, "list links"))]
