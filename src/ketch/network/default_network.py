"""The default network after a change of the daemon's settings while containers are on it.

Containers keep the addresses, the bridge, the MTU and the source addresses that they have; what changed is for those
that connect from now on.

subnet     the old one stays beside the new one as long as somebody has an address of it (``Pool.kept``)
bridge     the old network stays, out of sight, as long as somebody is on it (``NetworkRecord.retired``)
masquerade is remembered for each endpoint (``Endpoint.masquerade``)
the rest   is a property of the endpoint from its beginning on
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from ketch.network.model import record as r

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.network.live import LiveNetwork
    from ketch.network.model.record import Endpoint, NetworkRecord, Pool

log = logging.getLogger(__name__)


def with_pools_before(wanted: NetworkRecord, known: NetworkRecord) -> NetworkRecord:
    """``wanted``, with the subnet that was chosen before where the settings name none."""
    pools = list(wanted.pools)
    for version, enabled in ((4, wanted.ipv4), (6, wanted.ipv6)):
        before = known.pool(version)
        if enabled and before is not None and not any(p.version == version for p in pools):
            pools.append(msgspec.structs.replace(before, kept=False))
    return msgspec.structs.replace(wanted, pools=tuple(sorted(pools, key=lambda p: p.version)))


def merged(known: LiveNetwork, wanted: NetworkRecord) -> NetworkRecord:
    """``wanted``, with the subnets that endpoints of ``known`` have addresses of."""
    pools: list[Pool] = list(wanted.pools)
    for old in known.record.pools:
        same = next((p for p in pools if p.subnet == old.subnet and p.gateway in (old.gateway, "")), None)
        if same is not None or not _in_use(old, known):
            continue
        rival = next((p for p in pools if _overlap(p, old)), None)
        if rival is None:
            pools.append(msgspec.structs.replace(old, kept=True))
            continue
        log.warning(
            "network bridge: containers use %s, which overlaps %s: the new subnet has to wait until they are gone",
            old.subnet,
            rival.gateway_interface or rival.subnet,
        )
        pools[pools.index(rival)] = msgspec.structs.replace(old, kept=False)
    return msgspec.structs.replace(wanted, pools=tuple(pools))


def beside(retired: Sequence[NetworkRecord], wanted: NetworkRecord) -> NetworkRecord:
    """``wanted`` without subnets that retired networks still have; others are chosen instead."""
    pools = []
    for pool in wanted.pools:
        rival = next((n for n in retired if any(_overlap(p, pool) for p in n.pools)), None)
        if rival is None:
            pools.append(pool)
        else:
            log.warning(
                "network bridge: containers on bridge %s use %s still: another is chosen", rival.link, pool.subnet
            )
    return msgspec.structs.replace(wanted, pools=tuple(pools))


def _overlap(pool: Pool, other: Pool) -> bool:
    return pool.version == other.version and pool.network.overlaps(other.network)


def _in_use(pool: Pool, network: LiveNetwork) -> bool:
    return any(i.ip in pool.network for e in network.endpoints.values() for i in e.interfaces)


def remembering(endpoint: Endpoint, before: NetworkRecord) -> Endpoint:
    """The endpoint with the settings of the network that it has used so far."""
    if endpoint.masquerade is not None:
        return endpoint
    return msgspec.structs.replace(endpoint, masquerade=before.flag(r.OPTION_MASQUERADE, True))
