"""Live side of a network: its record, endpoints, used addresses, and the host's link."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from msgspec import Struct, field

from ketch.network.firewall.ruleset import Forward, Segment
from ketch.network.model import ipam
from ketch.network.model import record as r
from ketch.network.model.ipam import Allocator

if TYPE_CHECKING:
    from ketch.linux.netlink.links import NetworkLink
    from ketch.network.model.record import Endpoint, NetworkRecord

# Drivers whose networks containers get an interface on.
WIRED = (r.BRIDGE, r.MACVLAN, r.IPVLAN)


class LiveNetwork(Struct, eq=False):
    """``link`` is None for drivers that have none; ``endpoints`` by container id."""

    record: NetworkRecord
    allocators: list[Allocator]
    link: NetworkLink | None = None
    endpoints: dict[str, Endpoint] = field(default_factory=dict)

    @staticmethod
    def of(record: NetworkRecord, last: dict[str, int]) -> LiveNetwork:
        """The live side of a stored network."""
        return LiveNetwork(record, [Allocator(pool, last.get(pool.subnet, 0)) for pool in record.pools])

    @property
    def last(self) -> dict[str, int]:
        """The last assigned address of each subnet."""
        return {allocator.pool.subnet: allocator.last for allocator in self.allocators}

    def changed(self, record: NetworkRecord) -> LiveNetwork:
        """The network with other settings and the same endpoints."""
        fresh = LiveNetwork.of(record, self.last)
        fresh.link = self.link
        for endpoint in self.endpoints.values():
            fresh.adopt(endpoint)
        return fresh

    def allocator(self, version: int, wanted: str = "") -> Allocator | None:
        """The allocator of a family: of the subnet that has a wanted address, else the first."""
        mine = [a for a in self.allocators if a.pool.version == version and not a.pool.kept]
        if wanted:
            mine = [a for a in mine if ipam.contains(a.network, wanted)] or mine
        return mine[0] if mine else None

    def give_back(self, endpoint: Endpoint) -> None:
        """Free both addresses of an endpoint."""
        for interface in endpoint.interfaces:
            for allocator in self.allocators:
                if interface.ip in allocator.network:
                    allocator.give_back(str(interface.ip))

    def adopt(self, endpoint: Endpoint) -> None:
        """Register a stored endpoint."""
        self.endpoints[endpoint.container_id] = endpoint
        for interface in endpoint.interfaces:
            for allocator in self.allocators:
                if interface.ip in allocator.network:
                    allocator.hold(str(interface.ip))

    def segment(self) -> Segment:
        """The network as the firewall sees it."""
        options = self.record.options
        masquerade = self.record.flag(r.OPTION_MASQUERADE, True)
        others = [e for e in self.endpoints.values() if e.masquerade not in (None, masquerade)]
        return Segment(
            bridge=self.record.link,
            subnets=tuple(pool.subnet for pool in self.record.pools),
            internal=self.record.internal,
            masquerade=masquerade,
            exceptions=tuple(a for e in others for a in (e.ip, e.ip6) if a),
            snat=tuple(options[o] for o in (r.OPTION_SNAT4, r.OPTION_SNAT6) if options.get(o)),
            modes=(self.record.mode(4), self.record.mode(6)),
        )


def forwards(endpoint: Endpoint, record: NetworkRecord, *, direct: bool = False) -> list[Forward]:
    """The port forwards of an endpoint, for each family the host's address to the container's.

    ``direct``: who has a route to the container reaches its published ports at its own address, too, unless they are
    published on the host's loopback alone.
    """
    result = []
    for b in endpoint.bindings:
        target = endpoint.ip6 if b.version == 6 else endpoint.ip
        if target and not b.relayed:
            routed = record.mode(b.version) == r.ROUTED
            result.append(Forward(b.proto, b.host_ip, b.host_port, target, b.container_port, routed))
            if direct and not routed and not ipaddress.ip_address(b.host_ip).is_loopback:
                result.append(Forward(b.proto, "", 0, target, b.container_port, True))
    return list(dict.fromkeys(result))  # a port that is published twice is one port of the container
