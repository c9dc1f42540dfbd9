"""rtnetlink(7) requests for addresses and routes, and the reading of the kernel's answers."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from typing import TYPE_CHECKING

from ketch.linux.netlink.messages import NLM_F_CREATE, NLM_F_EXCL, NetlinkRequest, attr, attributes, number, u32

if TYPE_CHECKING:
    from ketch.linux.netlink.client import Netlink

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4
IFA_F_NODAD = 0x02
IFA_F_TENTATIVE = 0x40

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


def add_address(index: int, address: Interface) -> NetlinkRequest:
    """Give a link an address; the kernel adds the subnet's route.  An IPv6 address is usable at once (no DAD)."""
    return NetlinkRequest(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _address(index, address), f"add address {address}")


def delete_address(index: int, address: Interface) -> NetlinkRequest:
    """Take an address from a link."""
    return NetlinkRequest(RTM_DELADDR, 0, _address(index, address), f"delete address {address}")


def _address(index: int, address: Interface) -> bytes:
    packed = address.ip.packed
    flags = IFA_F_NODAD if address.version == 6 else 0
    head = struct.pack("=BBBBI", _FAMILY[address.version], address.network.prefixlen, flags, RT_SCOPE_UNIVERSE, index)
    body = head + attr(IFA_LOCAL, packed) + attr(IFA_ADDRESS, packed)
    return body + attr(IFA_BROADCAST, address.network.broadcast_address.packed) if address.version == 4 else body


def default_route(index: int, gateway: Address) -> NetlinkRequest:
    """Send everything that is not on the link to ``gateway``."""
    return NetlinkRequest(RTM_NEWROUTE, NLM_F_CREATE, _default(index, gateway), f"add default route via {gateway}")


def device_route(index: int, family: int) -> NetlinkRequest:
    """Send everything of a family (4 or 6) that is not elsewhere out of the link."""
    return NetlinkRequest(RTM_NEWROUTE, NLM_F_CREATE, _default(index, None, family), "add default route")


def delete_default_route(index: int, gateway: Address) -> NetlinkRequest:
    """Undo `default_route`; one that is not there (any more) is no error."""
    what = f"delete default route via {gateway}"
    return NetlinkRequest(RTM_DELROUTE, 0, _default(index, gateway), what, tolerated=errno.ESRCH)


def _default(index: int, gateway: Address | None, family: int = 0) -> bytes:
    scope = RT_SCOPE_UNIVERSE if gateway is not None or family == 6 else RT_SCOPE_LINK
    version = gateway.version if gateway is not None else family
    head = struct.pack("=BBBBBBBBI", _FAMILY[version], 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    via = attr(RTA_GATEWAY, gateway.packed) if gateway is not None else b""
    return head + via + u32(RTA_OIF, index)


def list_addresses(rtnl: Netlink) -> list[tuple[int, ipaddress.IPv4Interface]]:
    """Every IPv4 address of the namespace with its link's index."""
    return [(i, a) for i, a in list_all_addresses(rtnl) if isinstance(a, ipaddress.IPv4Interface)]


def list_all_addresses(rtnl: Netlink) -> list[tuple[int, Interface]]:
    """Every address of the namespace, of both families, with its link's index."""
    result: list[tuple[int, Interface]] = []
    body = struct.pack("=BBBBI", socket.AF_UNSPEC, 0, 0, 0, 0)
    for answer in rtnl.dump(NetlinkRequest(RTM_GETADDR, 0, body, "list addresses")):
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
    for body in rtnl.dump(NetlinkRequest(RTM_GETROUTE, 0, head, "list routes")):
        family, prefix_len, _, _, table = struct.unpack_from("=BBBBB", body)
        found = attributes(body[12:])
        if table != RT_TABLE_MAIN or not prefix_len or RTA_DST not in found:
            continue
        if family == socket.AF_INET:
            result.append((number(found.get(RTA_OIF)), ipaddress.IPv4Network((found[RTA_DST], prefix_len))))
        elif family == socket.AF_INET6:
            result.append((number(found.get(RTA_OIF)), ipaddress.IPv6Network((found[RTA_DST], prefix_len))))
    return result
