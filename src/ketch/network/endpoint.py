"""A container's place in the network: the record, and the wiring of its interface.

host namespace                     container's namespace
ketch0 (bridge) ── veth1a2b3c4d ═══ eth0  address, default route via the bridge
                                    lo    up
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ketch.network import links, netlink

if TYPE_CHECKING:
    from collections.abc import Iterator

IFNAME = "eth0"
_CARRIER_TIMEOUT_S = 0.25


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
    rtnl: netlink.Netlink, endpoint: Endpoint, *, bridge: links.Link, mtu: int, netns_fd: int, rtnl_fd: int | None
) -> None:
    """Make the veth pair and bring it up at both ends; on failure nothing is left.

    ``rtnl_fd`` is a rtnetlink socket of the container's namespace; without it one is opened there.
    """
    mac = bytes.fromhex(endpoint.mac.replace(":", ""))
    rtnl.run([
        links.new_veth(endpoint.veth, bridge.index, mtu, peer=IFNAME, peer_mac=mac, netns_fd=netns_fd)
    ])  # fmt: skip
    try:
        with inside(netns_fd, rtnl_fd) as container:
            _configure(container, endpoint)
            rtnl.run([links.set_up(name=endpoint.veth)])
            _wait_until_it_carries(container, IFNAME)
            index = _wait_until_it_carries(rtnl, endpoint.veth).index
            _wait_until_it_carries(rtnl, bridge.name)  # it has no carrier while it has no port
        if endpoint.bindings:
            # A container that calls its own published port gets its packet back through the port it came from, when
            # the host passes bridged packets through its firewall (net.bridge.bridge-nf-call-iptables).
            rtnl.run([links.hairpin(index)])
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


def _wait_until_it_carries(rtnl: netlink.Netlink, name: str) -> links.Link:
    """Wait until the link passes packets; one look is enough where looking settles it (Linux 6.12 and later).

    The kernel notices "carrier on" in a work queue.  Until then it silently drops what is sent, and a container whose
    first act is to connect somewhere would lose a whole second to TCP's first retransmission.
    """
    deadline = time.monotonic() + _CARRIER_TIMEOUT_S
    pause_s = 0.0002
    while True:
        link = links.get_link(rtnl, name)
        if link.operstate == links.IF_OPER_UP or time.monotonic() > deadline:
            return link
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.005)


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
