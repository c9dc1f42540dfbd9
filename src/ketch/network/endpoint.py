"""A container's place in the network: the record, and the wiring of its interface.

host namespace                     container's namespace
ketch0 (bridge) ── veth1a2b3c4d ═══ eth0  address, default route via the bridge
                                    lo    up
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ketch.network import links, netlink

if TYPE_CHECKING:
    from collections.abc import Iterator

IFNAME = "eth0"


@dataclass(frozen=True)
class Binding:
    """One published port: ``host_ip:host_port`` of the host leads to ``container_port``."""

    proto: str
    container_port: int
    host_ip: str
    host_port: int


@dataclass(frozen=True)
class Endpoint:
    """One container's connection to the bridge; ``mac`` as text, addresses as dotted text."""

    container_id: str
    endpoint_id: str
    network_id: str
    ip: str
    prefix_len: int
    gateway: str
    mac: str
    veth: str
    bindings: tuple[Binding, ...] = ()
    ifname: str = IFNAME

    @property
    def ports(self) -> dict[str, list[dict[str, str]]]:
        """Published ports in Docker's form: ``{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}``."""
        result: dict[str, list[dict[str, str]]] = {}
        for b in self.bindings:
            entry = {"HostIp": b.host_ip, "HostPort": str(b.host_port)}
            result.setdefault(f"{b.container_port}/{b.proto}", []).append(entry)
        return result


def wire(
    rtnl: netlink.Netlink, endpoint: Endpoint, *, bridge_index: int, mtu: int, netns_fd: int, rtnl_fd: int | None
) -> None:
    """Make the veth pair and bring it up at both ends; on failure nothing is left.

    ``rtnl_fd`` is a rtnetlink socket of the container's namespace; without it one is opened there.
    """
    mac = bytes.fromhex(endpoint.mac.replace(":", ""))
    rtnl.run([
        links.new_veth(endpoint.veth, bridge_index, mtu, peer=IFNAME, peer_mac=mac, netns_fd=netns_fd)
    ])  # fmt: skip
    try:
        with inside(netns_fd, rtnl_fd) as container:
            _configure(container, endpoint)
        # The bridge's end comes up last: then both ends have a carrier at once and the first packet is not lost.
        requests = [links.set_up(name=endpoint.veth)]
        if endpoint.bindings:
            # A container that calls its own published port gets its packet back through the port it came from, when
            # the host passes bridged packets through its firewall (net.bridge.bridge-nf-call-iptables).
            requests.append(links.hairpin(links.get_link(rtnl, endpoint.veth).index))
        rtnl.run(requests)
    except BaseException:
        unwire(rtnl, endpoint.veth)
        raise


def _configure(container: netlink.Netlink, endpoint: Endpoint) -> None:
    container.run([links.set_up(index=links.LOOPBACK_INDEX)])
    index = links.get_link(container, IFNAME).index
    container.run(
        [
            links.no_ipv6_address(index),
            links.add_address(index, ipaddress.IPv4Interface(f"{endpoint.ip}/{endpoint.prefix_len}")),
            links.set_up(index=index),
            links.default_route(index, ipaddress.IPv4Address(endpoint.gateway)),
        ]
    )


def unwire(rtnl: netlink.Netlink, veth: str) -> None:
    """Delete a veth pair; no error when it went with the container's namespace.  Takes tens of milliseconds."""
    try:
        rtnl.run([links.delete_link(veth)])
    except OSError as e:
        if e.errno != errno.ENODEV:
            raise


@contextlib.contextmanager
def inside(netns_fd: int | None, rtnl_fd: int | None) -> Iterator[netlink.Netlink]:
    """A rtnetlink socket of the container's namespace: the one handed over, or one opened there."""
    if rtnl_fd is not None:
        opened = netlink.Netlink(rtnl_fd)
    elif netns_fd is not None:
        opened = netlink.open_in(netns_fd)
    else:
        raise ValueError("neither a namespace nor a socket of it was given")
    with opened:
        yield opened
