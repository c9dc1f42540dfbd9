"""Completion of a new network's record: id, link, MTU and subnets that the request leaves open."""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import PermissionDenied, UnclassifiedArgument
from ketch.network.connections import MAX_INTERFACE_NAME
from ketch.network.firewall.ruleset import check_name
from ketch.network.links import parent_links
from ketch.network.model import record as r

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.network.model.record import NetworkRecord, Pool

DEFAULT_MTU = 1500


def complete(wanted: NetworkRecord, network_id: str, pools: Sequence[Pool]) -> NetworkRecord:
    """The completed record, with its id, link, MTU and subnets."""
    link, mtu = wanted.link, wanted.mtu or int(wanted.options.get(r.OPTION_MTU) or 0)
    if wanted.driver == r.BRIDGE:
        link = link or wanted.options.get(r.OPTION_NAME) or f"br-{network_id[:12]}"
        mtu = mtu or DEFAULT_MTU
    elif wanted.driver in (r.MACVLAN, r.IPVLAN):
        link = parent_links.link_name(network_id, wanted.options)
    return msgspec.structs.replace(
        wanted, id=network_id, link=link, mtu=mtu, pools=tuple(pools), created=wanted.created or time.time_ns()
    )


def with_gateway(pool: Pool) -> Pool:
    """The pool with the first free address as its gateway."""
    taken = set(pool.aux.values())
    inside = ipaddress.ip_network(pool.ip_range) if pool.ip_range and pool.version == 4 else pool.network
    reserved = str(pool.network.network_address)
    first = next(str(a) for a in (inside[i] for i in range(1 << 16)) if str(a) not in (*taken, reserved))
    return msgspec.structs.replace(pool, gateway=first)


def check_link(record: NetworkRecord, others: Sequence[NetworkRecord]) -> None:
    """Check a network's link name: valid, and of no other network (UnclassifiedArgument, PermissionDenied)."""
    if record.driver == r.BRIDGE and len(record.link.encode()) > MAX_INTERFACE_NAME:
        raise UnclassifiedArgument(
            f"numerical result out of range: invalid bridge name `{record.link}`: longer than {MAX_INTERFACE_NAME} "
            "characters"
        )
    if record.driver == r.BRIDGE:
        check_name(record.link)
    if record.driver in (r.MACVLAN, r.IPVLAN):
        parent_links.mode(record)
    rivals = [n for n in others if n.link == record.link and record.link]
    if rivals and record.driver == r.BRIDGE:
        raise PermissionDenied(
            f"cannot create network {record.id} ({record.link}): conflicts with network {rivals[0].id} "
            f"({record.link}): networks have same bridge name"
        )
