"""The bridge: made once, adopted after a restart, never taken from somebody else.

Two marks say whose it is.  A lock (`locks`) tells running daemons apart; the link's alias tells the data roots apart
whose containers may still be attached (`owner`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.errors import Conflict, FailedPrecondition
from ketch.network import ipam, links, sysctl
from ketch.network.record import ISOLATED, OPTION_INHIBIT

if TYPE_CHECKING:
    from collections.abc import Collection

    from ketch.network.netlink import Netlink
    from ketch.network.record import NetworkRecord

_ALIAS = "ketch:"


def ensure(rtnl: Netlink, record: NetworkRecord) -> links.Link:
    """Make the network's bridge or adopt it; afterwards it is up and has the gateways' addresses."""
    name = record.link
    wanted = [g for pool in record.pools if (g := pool.gateway_interface) is not None]
    if record.flag(OPTION_INHIBIT, False):
        wanted = [g for g in wanted if g.version == 6]
    wanted = [g for g in wanted if record.mode(g.version) != ISOLATED]
    link = links.find_link(rtnl, name)
    if link is None:
        mac = ipam.mac_for(str(wanted[0].ip)) if wanted else b"\x02\x42" + bytes.fromhex(record.id[:8])
        rtnl.run(links.new_bridge(name, mac, record.mtu, _ALIAS + record.id))
        link = links.get_link(rtnl, name)
    _check(rtnl, link, record.id)
    sysctl.prepare_bridge(name, ipv6=record.ipv6)
    _set_addresses(rtnl, link, wanted)
    if not link.up:
        rtnl.run([links.set_up(index=link.index)])
    return links.get_link(rtnl, name)


def _set_addresses(rtnl: Netlink, link: links.Link, wanted: list[links.Interface]) -> None:
    present = [address for index, address in links.list_all_addresses(rtnl) if index == link.index]
    rtnl.run([links.add_address(link.index, address) for address in wanted if address not in present])
    if is_ours(link):
        strange = [a for a in present if a not in wanted and not a.ip.is_link_local]
        rtnl.run([links.delete_address(link.index, address) for address in strange])


def _check(rtnl: Netlink, link: links.Link, network_id: str) -> None:
    if link.kind != "bridge":
        raise FailedPrecondition(
            f"use `{link.name}` as bridge: it is another kind of link ({link.kind or 'device'})",
            hint="choose another name with --bridge",
        )
    if is_ours(link) and link.alias != _ALIAS + network_id:
        if port_names(rtnl, link.name):
            raise Conflict(
                f"use bridge `{link.name}`: containers of another data root are attached to it",
                hint="stop them, or give this daemon its own --bridge and --bip",
            )
        rtnl.run(links.mark(link.name, _ALIAS + network_id))


def is_ours(link: links.Link) -> bool:
    """Whether Ketch made the bridge (one that the administrator made is used, and left in place at the end)."""
    return link.alias.startswith(_ALIAS)


def port_names(rtnl: Netlink, name: str) -> list[str]:
    """Names of the links attached to a bridge; none when there is no such bridge."""
    everything = links.list_links(rtnl)
    index = next((link.index for link in everything if link.name == name), -1)
    return [link.name for link in everything if link.master == index]


def used_networks(rtnl: Netlink, own: Collection[str]) -> list[links.Network]:
    """Subnets that this host has addresses in or routes to, apart from those of our ``own`` links."""
    indexes = {link.index for link in links.list_links(rtnl) if link.name in own}
    used: list[links.Network] = [a.network for i, a in links.list_all_addresses(rtnl) if i not in indexes]
    return used + [network for i, network in links.list_routes(rtnl) if i not in indexes]
