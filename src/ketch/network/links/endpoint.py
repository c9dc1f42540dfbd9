"""The wiring of a container's interfaces.

host namespace                     container's namespace
br-… (bridge) ── veth1a2b3c4d ═══ eth0  addresses, default routes via the bridge     (bridge driver)
eth0 (parent) ─────────────────── eth1  a link of its own on the parent              (macvlan, ipvlan)
                                  lo    up
"""

from __future__ import annotations

import contextlib
import errno
import time
from typing import TYPE_CHECKING, NamedTuple

from ketch.failpoints import failpoint
from ketch.linux.netlink import addresses, link_kinds, links
from ketch.linux.netlink import client as netlink
from ketch.network.links import interface_sysctls, parent_links, sysctl
from ketch.network.links import owner as marks
from ketch.network.model.record import MACVLAN, Binding, Endpoint
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ketch.linux.netlink.messages import NetlinkRequest
    from ketch.network.links.interface_sysctls import Setting
    from ketch.network.model.record import NetworkRecord

__all__ = ["Binding", "Endpoint"]
_CARRIER_TIMEOUT_S = 0.25


class BridgePort(NamedTuple):
    """The host's end of a veth pair: ``isolated`` keeps it from the bridge's other ones, ``owner`` is in its mark."""

    bridge: links.NetworkLink
    mtu: int
    isolated: bool
    owner: str


class Namespace(NamedTuple):
    """A container's network namespace, and a rtnetlink socket of it, if there is one."""

    netns_fd: int
    rtnl_fd: int | None


def wire_bridge(
    rtnl: netlink.Netlink, made: Endpoint, port: BridgePort, sysctls: Sequence[Setting], namespace: Namespace
) -> None:
    """Make the veth pair and bring it up at both ends; on failure nothing is left.

    ``rtnl_fd`` is a rtnetlink socket of the container's namespace; without it one is opened there.  ``isolated`` keeps
    it from other containers of the bridge, ``owner`` stands in the mark of this end, ``sysctls`` are for the other one.
    """
    rtnl.run([_veth(made, port, namespace.netns_fd)])
    with Undo() as undo:
        undo.callback(unwire, rtnl, made.veth)
        failpoint("network.veth-made")
        sysctl.silence(made.veth)
        interface_sysctls.write(namespace.netns_fd, made, sysctls)
        with inside(*namespace) as container:
            _configure(container, made)
            failpoint("network.addresses-set")
            rtnl.run([links.set_up(name=made.veth, alias=marks.alias(made.endpoint_id[:12], port.owner))])
            _wait_until_it_carries(container, made.ifname)
            index = _wait_until_it_carries(rtnl, made.veth).index
            _wait_until_it_carries(rtnl, port.bridge.name)  # it has no carrier while it has no port
        _configure_port(rtnl, made, index, isolated=port.isolated)
        undo.pop_all()


def _veth(made: Endpoint, port: BridgePort, netns_fd: int) -> NetlinkRequest:
    mac = _mac(made)
    return links.new_veth(made.veth, port.bridge.index, port.mtu, peer=made.ifname, peer_mac=mac, netns_fd=netns_fd)


def _mac(made: Endpoint) -> bytes:
    return bytes.fromhex(made.mac.replace(":", ""))


def attach(rtnl: netlink.Netlink, made: Endpoint, index: int, bridge: int, *, isolated: bool) -> None:
    """Attach an interface, by its index on the host, to another bridge."""
    rtnl.run([links.set_master(index, bridge)])
    _configure_port(rtnl, made, index, isolated=isolated)


def _configure_port(rtnl: netlink.Netlink, made: Endpoint, index: int, *, isolated: bool) -> None:
    if isolated:
        rtnl.run([links.isolate(index)])
    if made.bindings:
        let_hairpin(rtnl, made)


def open_rtnetlink(netns_fd: int) -> netlink.Netlink:
    """A rtnetlink socket in a container's network namespace, to be closed by the caller (OSError)."""
    return netlink.open_in(netns_fd)


def let_hairpin(rtnl: netlink.Netlink, made: Endpoint) -> None:
    """Turn on hairpin mode, so that a container can reach its own published ports.

    That matters when the host passes bridged packets through its firewall (net.bridge.bridge-nf-call-iptables).
    """
    rtnl.run([links.hairpin(links.get_link(rtnl, made.veth).index)])


def wire_child(
    rtnl: netlink.Netlink,
    made: Endpoint,
    record: NetworkRecord,
    parent: int,
    sysctls: Sequence[Setting],
    namespace: Namespace,
) -> None:
    """Make a macvlan or ipvlan link in the container's namespace; on failure nothing is left."""
    mode = parent_links.mode(record)
    with inside(*namespace) as container:
        if record.driver == MACVLAN:
            request = link_kinds.new_macvlan(made.ifname, parent, mode, _mac(made), record.mtu, namespace.netns_fd)
        else:
            request = link_kinds.new_ipvlan(made.ifname, parent, mode, record.mtu, namespace.netns_fd)
        rtnl.run([request])
        with Undo() as undo:
            undo.callback(unwire, container, made.ifname)
            interface_sysctls.write(namespace.netns_fd, made, sysctls)
            _configure(container, made)
            undo.pop_all()


def _configure(container: netlink.Netlink, made: Endpoint) -> None:
    container.run([links.set_up(index=links.LOOPBACK_INDEX)])
    index = links.get_link(container, made.ifname).index
    requests = [addresses.add_address(index, interface) for interface in made.interfaces]
    requests.append(links.set_up(index=index))
    container.run(requests)
    container.run([r for version in (4, 6) for r in _default_route(made, index, version)])


def _default_route(made: Endpoint, index: int, version: int) -> list[NetlinkRequest]:
    used = made.gateway4_used if version == 4 else made.gateway6_used
    gateway = made.gateway_of(version)
    if not used:
        return []
    if gateway is None:
        return [addresses.device_route(index, version)]
    return [addresses.default_route(index, gateway)]


def move_gateway(container: netlink.Netlink, old: Endpoint | None, new: Endpoint | None, version: int) -> None:
    """Move the default route of a family from one interface to another; either may be missing."""
    if old is not None and (gateway := old.gateway_of(version)) is not None:
        with contextlib.suppress(OSError):  # the interface went, and its routes with it
            container.run([addresses.delete_default_route(links.get_link(container, old.ifname).index, gateway)])
    if new is not None:
        container.run(_default_route(new, links.get_link(container, new.ifname).index, version))


def _wait_until_it_carries(rtnl: netlink.Netlink, name: str) -> links.NetworkLink:
    """Wait until the link passes packets; on Linux 6.12 and later one check is enough.

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


def unwire(rtnl: netlink.Netlink, name: str) -> None:
    """Delete a link; no error when it went with the container's namespace.  Takes tens of milliseconds."""
    try:
        rtnl.run([links.delete_link(name)])
    except OSError as e:
        if e.errno != errno.ENODEV:
            raise


@contextlib.contextmanager
def inside(netns_fd: int | None, rtnl_fd: int | None) -> Iterator[netlink.Netlink]:
    """A rtnetlink socket in the container's namespace: the given one, or a new one."""
    if rtnl_fd is not None:
        opened = netlink.Netlink(rtnl_fd)
    elif netns_fd is not None:
        opened = netlink.open_in(netns_fd)
    else:
        raise ValueError("neither a namespace nor a socket of it was given")
    with opened:
        yield opened
