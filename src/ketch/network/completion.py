"""Completion of a new network's record: id, link, MTU and subnets that the request leaves open."""

from __future__ import annotations

import ipaddress
import itertools
import time
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import InvalidArgument, PermissionDenied, ResourceExhausted, UnclassifiedArgument
from ketch.network.connections import MAX_INTERFACE_NAME
from ketch.network.firewall.ruleset import check_name
from ketch.network.links import parent_links
from ketch.network.model import ipam
from ketch.network.model import record as r

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.network.model.record import NetworkRecord, Pool


def complete(wanted: NetworkRecord, network_id: str, pools: Sequence[Pool], bridges_mtu: int) -> NetworkRecord:
    """The completed record, with its id, link, MTU and subnets."""
    link, mtu = wanted.link, wanted.mtu or int(wanted.options.get(r.OPTION_MTU) or 0)
    if wanted.driver == r.BRIDGE:
        link = link or wanted.options.get(r.OPTION_NAME) or f"br-{network_id[:12]}"
        mtu = mtu or bridges_mtu
    elif wanted.driver in (r.MACVLAN, r.IPVLAN):
        link = parent_links.link_name(network_id, wanted.options)
    return msgspec.structs.replace(
        wanted, id=network_id, link=link, mtu=mtu, pools=tuple(pools), created=wanted.created or time.time_ns()
    )


def with_gateway(pool: Pool) -> Pool:
    """The pool with a gateway, by default its first address (ResourceExhausted, UnclassifiedArgument)."""
    if pool.gateway:
        if ipaddress.ip_address(pool.gateway) in ipam.reserved(pool.network):
            raise UnclassifiedArgument(f"failed to allocate gateway ({pool.gateway}): Address already in use")
        return pool
    inside = ipaddress.ip_network(pool.ip_range) if pool.ip_range and pool.version == 4 else pool.network
    unusable = ipam.reserved(pool.network)
    first = next((a for a in itertools.islice(inside, len(unusable) + 1) if a not in unusable), None)
    if first is None:
        raise ResourceExhausted(
            "failed to allocate gateway (): no available addresses on this pool", hint="use a larger subnet"
        )
    return msgspec.structs.replace(pool, gateway=str(first), gateway_given=False)


def check_auxiliary(pool: Pool, network: str) -> None:
    """Raise UnclassifiedArgument for an auxiliary address that nobody can have, or somebody has."""
    taken = {*ipam.reserved(pool.network), *([ipaddress.ip_address(pool.gateway)] if pool.gateway else ())}
    for name, text in sorted(pool.aux.items()):
        if not text:
            raise InvalidArgument(f"non parsable secondary ip address ({name}:) passed for network {network}")
        address = ipaddress.ip_address(text)
        if address in taken:
            raise UnclassifiedArgument(
                f"failed to allocate secondary ip address ({name}:{text}): Address already in use"
            )
        taken.add(address)


def check_link(record: NetworkRecord, others: Sequence[NetworkRecord]) -> None:
    """Check a network's link name: valid, and of no other network (UnclassifiedArgument, PermissionDenied)."""
    if record.driver == r.BRIDGE and len(record.link.encode()) > MAX_INTERFACE_NAME:
        raise UnclassifiedArgument(
            f"numerical result out of range: invalid bridge name `{record.link}`: longer than {MAX_INTERFACE_NAME} "
            "characters"
        )
    if record.driver == r.BRIDGE:
        try:
            check_name(record.link)
        except InvalidArgument as e:
            raise UnclassifiedArgument("invalid argument", hint=f"`{record.link}` is no name of an interface") from e
    if record.driver in (r.MACVLAN, r.IPVLAN):
        parent_links.mode(record)
    rivals = [n for n in others if n.link == record.link and record.link]
    if rivals and record.driver == r.BRIDGE:
        raise PermissionDenied(
            f"cannot create network {record.id} ({record.link}): conflicts with network {rivals[0].id} "
            f"({record.link}): networks have same bridge name"
        )
