"""rtnetlink(7) requests for the links of the macvlan driver: macvlan on a parent, VLAN subinterfaces, dummies."""

from __future__ import annotations

import struct

from ketch.linux.netlink.links import (
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    RTM_NEWLINK,
    ifinfo,
)
from ketch.linux.netlink.messages import NLM_F_CREATE, NLM_F_EXCL, NetlinkRequest, attr, nest, text, u16, u32

IFLA_LINK = 5
_IFLA_MACVLAN_MODE = 1
_IFLA_IPVLAN_MODE = 1
_IFLA_VLAN_ID = 1
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}


def new_macvlan(name: str, parent: int, mode: str, mac: bytes, mtu: int, netns_fd: int) -> NetlinkRequest:
    """Make a macvlan link on the host's link ``parent`` (an index); it appears in another namespace."""
    kind = nest(
        IFLA_LINKINFO,
        text(IFLA_INFO_KIND, "macvlan"),
        nest(IFLA_INFO_DATA, u32(_IFLA_MACVLAN_MODE, MACVLAN_MODES[mode])),
    )
    return _on_parent(name, parent, kind + attr(IFLA_ADDRESS, mac), mtu, netns_fd, f"make macvlan link `{name}`")


def new_ipvlan(name: str, parent: int, mode: str, mtu: int, netns_fd: int) -> NetlinkRequest:
    """Make an ipvlan link on ``parent``, whose hardware address it shares; it appears in another namespace."""
    data = nest(IFLA_INFO_DATA, attr(_IFLA_IPVLAN_MODE, struct.pack("=H", IPVLAN_MODES[mode])))
    kind = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "ipvlan"), data)
    return _on_parent(name, parent, kind, mtu, netns_fd, f"make ipvlan link `{name}`")


def _on_parent(name: str, parent: int, kind: bytes, mtu: int, netns_fd: int, what: str) -> NetlinkRequest:
    body = ifinfo() + text(IFLA_IFNAME, name) + u32(IFLA_LINK, parent) + u32(IFLA_NET_NS_FD, netns_fd) + kind
    if mtu:
        body += u32(IFLA_MTU, mtu)
    return NetlinkRequest(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, what)


def new_vlan(name: str, parent: int, vlan_id: int) -> NetlinkRequest:
    """Make a VLAN subinterface (802.1Q) of ``parent``, up."""
    data = nest(IFLA_INFO_DATA, u16(_IFLA_VLAN_ID, vlan_id))
    body = ifinfo(0, IFF_UP, IFF_UP) + text(IFLA_IFNAME, name) + u32(IFLA_LINK, parent)
    body += nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "vlan"), data)
    return NetlinkRequest(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"make VLAN link `{name}`")


def new_dummy(name: str, kind: str = "dummy") -> NetlinkRequest:
    """Make a dummy link, up: the parent of a macvlan network without one."""
    body = ifinfo(0, IFF_UP, IFF_UP) + text(IFLA_IFNAME, name) + nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind))
    return NetlinkRequest(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"make link `{name}`")
