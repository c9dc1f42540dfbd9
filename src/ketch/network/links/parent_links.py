"""Parent links of macvlan and ipvlan networks: links of the host, named by ``parent``, or made here.

parent=eth0       an interface of the host, which stays as it is
parent=eth0.50    a VLAN subinterface; made when it is not there, and then removed with the network
(none)            a link that leads nowhere: containers reach each other only
"""

from __future__ import annotations

import re
from errno import EOPNOTSUPP
from typing import TYPE_CHECKING

from ketch.errors import UnclassifiedArgument
from ketch.linux.netlink import link_kinds, links
from ketch.network.links import owner as marks
from ketch.network.model.record import MACVLAN, NetworkRecord

if TYPE_CHECKING:
    from ketch.linux.netlink.client import Netlink

_PREFIX = "dm-"
_VLAN = re.compile(r"(?P<parent>[^/\s]+)\.(?P<id>[0-9]{1,4})")


def link_name(network_id: str, options: dict[str, str]) -> str:
    """The parent's name for a new network."""
    return options.get("parent") or _PREFIX + network_id[:12]


def mode(record: NetworkRecord) -> str:
    """The mode in which containers' links share the parent (UnclassifiedArgument for an unknown one, or its flag)."""
    macvlan = record.driver == MACVLAN
    option, known = ("macvlan_mode", link_kinds.MACVLAN_MODES) if macvlan else ("ipvlan_mode", link_kinds.IPVLAN_MODES)
    chosen = record.options.get(option) or ("bridge" if macvlan else "l2")
    if chosen not in known:
        default = "bridge" if macvlan else "l2"
        raise UnclassifiedArgument(
            f"requested {record.driver} mode '{chosen}' is not valid, '{default}' mode is the {record.driver} driver "
            "default",
            hint=f"use one of {', '.join(known)}",
        )
    flag = record.options.get("ipvlan_flag", "bridge")
    if not macvlan and flag not in ("", "bridge", "private", "vepa"):
        raise UnclassifiedArgument(
            f"requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default"
        )
    return chosen


def ensure(rtnl: Netlink, record: NetworkRecord, owner: str) -> links.NetworkLink:
    """Find the parent, or make it (UnclassifiedArgument when it cannot be made)."""
    found = links.find_link(rtnl, record.link)
    if found is not None and found.index == links.LOOPBACK_INDEX:
        raise UnclassifiedArgument(f"loopback interface is not a valid {record.driver} parent link")
    if found is not None:
        return found
    if not record.options.get("parent"):
        return _make_dummy(rtnl, record, owner)
    vlan = _VLAN.fullmatch(record.link)
    base = links.find_link(rtnl, vlan["parent"]) if vlan else None
    if vlan is None and "." in record.link:
        vlan_id = record.link.rpartition(".")[2]
        raise UnclassifiedArgument(f"unable to parse a valid vlan id from: {vlan_id} (ex. eth0.10 for vlan 10)")
    if vlan is None:
        raise UnclassifiedArgument(
            f"invalid subinterface vlan name {record.link}, example formatting is eth0.10",
            hint="there is no such interface on this host",
        )
    if base is None:
        raise UnclassifiedArgument(f"-o parent interface was not found on the host: {vlan['parent']}")
    mark = links.mark(record.link, marks.alias(record.id, owner))
    rtnl.run([link_kinds.new_vlan(record.link, base.index, int(vlan["id"])), *mark])
    return links.get_link(rtnl, record.link)


def _make_dummy(rtnl: Netlink, record: NetworkRecord, owner: str) -> links.NetworkLink:
    try:
        rtnl.run([link_kinds.new_dummy(record.link)])
    except OSError as e:
        if e.errno != EOPNOTSUPP:
            raise
        # A kernel without dummy links: whatever is sent into an ifb goes nowhere as well.
        rtnl.run([link_kinds.new_dummy(record.link, "ifb")])
    rtnl.run(links.mark(record.link, marks.alias(record.id, owner)))
    return links.get_link(rtnl, record.link)


def is_ours(link: links.NetworkLink, record: NetworkRecord) -> bool:
    """Whether the link was made here, and is removed with the network."""
    mark = marks.of_link(link.alias)
    return mark is not None and mark.thing == record.id
