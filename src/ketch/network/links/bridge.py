"""The bridge of a network: made, adopted after a restart, never taken from another owner.

Two marks say whose it is.  A lock (`locks`) tells running daemons apart; the link's alias tells the data roots apart
whose containers may still be attached (`owner`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.errors import Conflict, FailedPrecondition
from ketch.linux.netlink import addresses, links
from ketch.linux.netlink.client import Netlink
from ketch.network.links import owner as marks
from ketch.network.links import sysctl
from ketch.network.model import ipam
from ketch.network.model.record import ISOLATED, OPTION_INHIBIT

if TYPE_CHECKING:
    from collections.abc import Collection

    from ketch.network.model.record import NetworkRecord


def ensure(rtnl: Netlink, record: NetworkRecord, owner: str) -> links.NetworkLink:
    """Make the network's bridge or adopt it; afterwards it is up and has the gateways' addresses."""
    name = record.link
    wanted = [g for pool in record.pools if (g := pool.gateway_interface) is not None]
    if record.flag(OPTION_INHIBIT, False):
        wanted = [g for g in wanted if g.version == 6]
    wanted = [g for g in wanted if record.mode(g.version) != ISOLATED]
    link = links.find_link(rtnl, name)
    _check_subnets(rtnl, link, wanted, owner)
    if link is None:
        mac = ipam.mac_for(str(wanted[0].ip)) if wanted else b"\x02\x42" + bytes.fromhex(record.id[:8])
        rtnl.run(links.new_bridge(name, mac, record.mtu, marks.alias(record.id, owner)))
        link = links.get_link(rtnl, name)
    _check(rtnl, link, record.id, owner)
    if is_ours(link):
        sysctl.prepare_bridge(name, ipv6=record.speaks_ipv6)
        _set_mtu(rtnl, link, record.mtu)
    sysctl.route_loopback(name)
    _set_addresses(rtnl, link, wanted)
    if not link.up:
        rtnl.run([links.set_up(index=link.index)])
    return links.get_link(rtnl, name)


def _check_subnets(
    rtnl: Netlink, link: links.NetworkLink | None, wanted: list[addresses.Interface], owner: str
) -> None:
    """Refuse an address that is not there yet, if another engine's bridge has its subnet (Conflict).

    With two routes to a subnet the containers of one engine would not be reached.
    """
    everything = addresses.list_all_addresses(rtnl)
    present = [address for index, address in everything if link is not None and index == link.index]
    new = [address for address in wanted if address not in present and not address.ip.is_link_local]
    if not new:
        return
    theirs = {}
    for other in links.list_links(rtnl):
        mark = marks.of_link(other.alias)
        if other.kind == "bridge" and mark is not None and mark.owner not in ("", owner):
            theirs[other.index] = other.name
    for address in new:
        for index, rival in everything:
            if index in theirs and address.version == rival.version and address.network.overlaps(rival.network):
                raise Conflict(
                    f"use subnet {address.network}: bridge `{theirs[index]}` of another data root has {rival.network}",
                    hint="choose another subnet (of the default network: --bip), or remove that bridge if nobody uses "
                    f"it: ip link delete {theirs[index]}",
                )


def _set_addresses(rtnl: Netlink, link: links.NetworkLink, wanted: list[addresses.Interface]) -> None:
    present = [address for index, address in addresses.list_all_addresses(rtnl) if index == link.index]
    rtnl.run([addresses.add_address(link.index, address) for address in wanted if address not in present])
    if is_ours(link):
        strange = [a for a in present if a not in wanted and not a.ip.is_link_local]
        rtnl.run([addresses.delete_address(link.index, address) for address in strange])


def _set_mtu(rtnl: Netlink, link: links.NetworkLink, wanted: int) -> None:
    """Set the bridge's MTU; it is not raised while ports are attached, which may take less."""
    if wanted != link.mtu and (wanted < link.mtu or not port_names(rtnl, link.name)):
        rtnl.run([links.set_mtu(link.index, wanted)])


def _check(rtnl: Netlink, link: links.NetworkLink, network_id: str, owner: str) -> None:
    if link.kind != "bridge":
        raise FailedPrecondition(
            f"existing interface {link.name} is not a bridge, but a {link.kind or 'device'}",
            hint="choose another name",
        )
    mark = marks.of_link(link.alias)
    if mark is None or mark == (network_id, owner):
        return
    if mark.thing != network_id and mark.owner != owner:
        raise Conflict(
            f"use bridge `{link.name}`: it belongs to another data root",
            hint=f"give this daemon its own --bridge and --bip, or remove it with `ip link delete {link.name}`",
        )
    if mark.thing != network_id and port_names(rtnl, link.name):
        raise Conflict(
            f"use bridge `{link.name}`: containers that this data root has forgotten are attached to it",
            hint="end them, or give this daemon another --bridge and --bip",
        )
    rtnl.run(links.mark(link.name, marks.alias(network_id, owner)))


def is_ours(link: links.NetworkLink) -> bool:
    """Whether Ketch made the bridge (one that the administrator made is used, and left in place at the end)."""
    return marks.of_link(link.alias) is not None


def port_names(rtnl: Netlink, name: str) -> list[str]:
    """Names of the links attached to a bridge; none when there is no such bridge."""
    everything = links.list_links(rtnl)
    index = next((link.index for link in everything if link.name == name), -1)
    return [link.name for link in everything if link.master == index]


def used_networks(rtnl: Netlink, own: Collection[str]) -> list[addresses.Network]:
    """Subnets that this host has addresses in or routes to, apart from those of our ``own`` links."""
    indexes = {link.index for link in links.list_links(rtnl) if link.name in own}
    used: list[addresses.Network] = [a.network for i, a in addresses.list_all_addresses(rtnl) if i not in indexes]
    return used + [network for i, network in addresses.list_routes(rtnl) if i not in indexes]


def networks_here() -> list[addresses.Network]:
    """Subnets that the calling thread's network namespace has addresses in or routes to."""
    with Netlink() as rtnl:
        return used_networks(rtnl, ())
