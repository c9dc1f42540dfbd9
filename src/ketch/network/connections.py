"""Connections of containers to networks: connect, disconnect, choice of the gateway.

An endpoint's row is written before anything is made in the kernel and deleted after all of it is gone, so that
the next start finds whatever a crash left half-done.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ketch.errors import InvalidArgument, KetchError, UnclassifiedArgument
from ketch.failpoints import failpoint
from ketch.network.links import endpoint
from ketch.network.live import WIRED
from ketch.network.model import ipam
from ketch.network.model import record as r
from ketch.network.model.record import Binding, Endpoint
from ketch.network.ports.host_ports import ANY
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.linux.netlink.client import Netlink
    from ketch.network.host import Host
    from ketch.network.links.interface_sysctls import Setting
    from ketch.network.live import LiveNetwork
    from ketch.network.model.ipam import Allocator
    from ketch.network.model.state import NetworkState
    from ketch.network.ports.requests import PortRequest

MAX_INTERFACE_NAME = 15
# What the kernel takes, without what it keeps for itself and what a terminal would not show as it is.
_IFNAME = re.compile(r"(?!(?:\.\.?|lo|all|default)\Z)[!-.0-9;-~]+")


class EndpointRequest(Struct, frozen=True):
    """A container's request to a network; empty fields are chosen by the network.

    ``label`` names the container in errors.  ``gateway4`` and ``gateway6`` say for which families this network is its
    way outside, ``outside6`` whether any is for IPv6; ``ports`` are published through it.  ``sysctls`` are set on its
    interface.
    """

    container_id: str
    label: str = ""
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    ifname: str = ""
    gateway4: bool = False
    gateway6: bool = False
    outside6: bool = False
    ports: Sequence[PortRequest] = ()
    sysctls: Sequence[Setting] = ()


class Connections:
    """All endpoints of all networks; the caller orders the calls."""

    def __init__(self, state: NetworkState, networks: Mapping[str, LiveNetwork]) -> None:
        self._state = state
        self._networks = networks

    def of(self, container_id: str) -> list[Endpoint]:
        """The container's endpoints, in the order of their interfaces' names."""
        found = [e for n in self._networks.values() if (e := n.endpoints.get(container_id)) is not None]
        return sorted(found, key=lambda e: (len(e.ifname), e.ifname))

    def connect(
        self, host: Host, network: LiveNetwork, request: EndpointRequest, netns_fd: int, rtnl_fd: int | None
    ) -> Endpoint:
        """Connect a container to a network; a failure leaves nothing.

        The file descriptors stay the caller's; ``rtnl_fd`` may be None (slower).
        """
        record = network.record
        with Undo() as undo:
            self.disconnect(host, network, request.container_id)
            ip, ip6 = self._addresses(network, request, undo)
            bindings = _reserve(host, request, record)
            undo.callback(host.ports.release, bindings)
            failpoint("network.ports-held")
            made = self._endpoint(network, request, ip, ip6, bindings)
            self._state.add(made, network.last)
            undo.callback(self._state.remove, made)
            failpoint("network.endpoint-written")
            try:
                self._wire(host, network, made, request, endpoint.Namespace(netns_fd, rtnl_fd))
                undo.callback(_unwire, host, made)
                network.endpoints[request.container_id] = made
                undo.callback(network.endpoints.pop, request.container_id, None)
                failpoint("network.wired")
                host.publish(made)
                failpoint("network.published")
            except OSError as e:
                raise KetchError(
                    f"connect container {request.label} to network `{record.name}`: {e}", hint=hint_of(e)
                ) from e
            undo.pop_all()
        return made

    def disconnect(self, host: Host, network: LiveNetwork, container_id: str, rtnl_fd: int | None = None) -> None:
        """Disconnect a container from a network; idempotent.

        The kernel finishes removing the interface a moment later; with ``rtnl_fd``, of a container that goes on
        running, it is gone at the return.
        """
        gone = network.endpoints.pop(container_id, None)
        if gone is None:
            return
        with Undo() as steps:
            steps.callback(network.give_back, gone)
            steps.callback(self._state.remove, gone)
            steps.callback(failpoint, "network.link-going")
            steps.callback(host.ports.release, gone.bindings)
            if rtnl_fd is None:
                steps.callback(_unwire, host, gone)
            else:
                steps.callback(_unwire_now, gone, rtnl_fd)
            steps.callback(failpoint, "network.unpublished")
            steps.callback(host.unpublish, gone)

    def _addresses(self, network: LiveNetwork, request: EndpointRequest, undo: Undo) -> tuple[str, str]:
        found = []
        for version, wanted, used in ((4, request.ip, network.record.ipv4), (6, request.ip6, network.record.ipv6)):
            allocator = network.allocator(version, wanted) if used else None
            if allocator is None:
                if wanted:
                    raise InvalidArgument(f"no configured subnet or ip-range contain the IP address {wanted}")
                found.append("")
                continue
            undo.callback(setattr, allocator, "last", allocator.last)
            address = allocator.take(wanted)
            undo.callback(allocator.give_back, address)
            found.append(address)
        return found[0], found[1]

    def _endpoint(
        self, network: LiveNetwork, request: EndpointRequest, ip: str, ip6: str, bindings: tuple[Binding, ...]
    ) -> Endpoint:
        record = network.record
        endpoint_id = secrets.token_hex(32)
        a4, a6 = network.allocator(4, ip), network.allocator(6, ip6)
        return Endpoint(
            container_id=request.container_id,
            network_id=record.id,
            endpoint_id=endpoint_id,
            ip=ip,
            prefix_len=a4.network.prefixlen if a4 and ip else 0,
            gateway=_gateway(a4, record) if ip else "",
            ip6=ip6,
            prefix_len6=a6.network.prefixlen if a6 and ip6 else 0,
            gateway6=_gateway(a6, record) if ip6 else "",
            mac="" if record.driver == r.IPVLAN else _mac(request.mac, ip or ip6),
            veth=f"veth{endpoint_id[:8]}" if record.driver == r.BRIDGE else "",
            ifname=self._ifname(request, record),
            bindings=bindings,
            gateway4_used=request.gateway4 and bool(ip),
            gateway6_used=request.gateway6 and bool(ip6),
        )

    def _ifname(self, request: EndpointRequest, record: r.NetworkRecord) -> str:
        taken = {e.ifname for e in self.of(request.container_id)}
        prefix = record.options.get(r.OPTION_PREFIX, "eth")
        name = request.ifname or next(n for i in range(len(taken) + 1) if (n := f"{prefix}{i}") not in taken)
        if len(name) > MAX_INTERFACE_NAME or not _IFNAME.fullmatch(name):
            raise UnclassifiedArgument(f"invalid interface name `{name}`", hint="use up to 15 letters and digits")
        if name in taken:
            raise UnclassifiedArgument(f"interface name `{name}` is used by another network of the container")
        return name

    def _wire(
        self,
        host: Host,
        network: LiveNetwork,
        made: Endpoint,
        request: EndpointRequest,
        namespace: endpoint.Namespace,
    ) -> None:
        record = network.record
        if network.link is None or record.driver not in WIRED:
            raise InvalidArgument(f"network `{record.name}` ({record.driver}) has no interfaces to give")
        if record.driver == r.BRIDGE:
            port = endpoint.BridgePort(
                network.link, record.mtu, isolated=not record.flag(r.OPTION_ICC, True), owner=host.owner
            )
            endpoint.wire_bridge(host.rtnl, made, port, request.sysctls, namespace)
        else:
            endpoint.wire_child(host.rtnl, made, record, network.link.index, request.sysctls, namespace)

    # -- the way outside -----------------------------------------------------------------------

    def set_gateways(self, host: Host, gateway4: str, gateway6: str, request: EndpointRequest, rtnl_fd: int) -> None:
        """Make networks ``gateway4`` and ``gateway6`` (ids; empty: none) a running container's gateways.

        Default routes and published ports move; ports of ``request`` that are not published yet are now.
        """
        with endpoint.inside(None, rtnl_fd) as container:
            for version, network_id in ((4, gateway4), (6, gateway6)):
                self._set_gateway(host, version, network_id, request, container)

    def _set_gateway(
        self, host: Host, version: int, network_id: str, request: EndpointRequest, container: Netlink
    ) -> None:
        flag = f"gateway{version}_used"
        mine = self.of(request.container_id)
        old = next((e for e in mine if getattr(e, flag)), None)
        new = next((e for e in mine if e.network_id == network_id), None)
        if old is not None and new is not None and old.network_id == new.network_id:
            return
        moved: tuple[Binding, ...] = ()
        if old is not None:
            moved = tuple(b for b in old.bindings if b.version == version)
            rest = tuple(b for b in old.bindings if b not in moved)
            host.unpublish(msgspec.structs.replace(old, bindings=moved))
            self._replace(msgspec.structs.replace(old, bindings=rest, **{flag: False}))
        if new is None:
            if version == 4 or not self._relay_instead(host, moved, mine):
                host.ports.release(moved)
        else:
            if old is None and not (version == 6 and (moved := self._no_longer_relayed(host, mine))):
                moved = _reserve(host, request, self._networks[network_id].record, (version,))
            changed = msgspec.structs.replace(new, bindings=(*new.bindings, *moved), **{flag: True})
            self._replace(changed)
            host.publish(msgspec.structs.replace(changed, bindings=moved))
            if changed.bindings and changed.veth:
                endpoint.let_hairpin(host.rtnl, changed)
            new = changed
        endpoint.move_gateway(container, old, new, version)

    def _relay_instead(self, host: Host, moved: tuple[Binding, ...], mine: Sequence[Endpoint]) -> bool:
        """Relay IPv6 ports to the gateway for IPv4, if there is one: the last way outside with IPv6 is gone."""
        way = next((self._now(e) for e in mine if self._now(e).gateway4_used), None)
        if way is None or not moved:
            return False
        relayed = tuple(msgspec.structs.replace(b, relayed=True) for b in moved if b.host_port)
        self._replace(msgspec.structs.replace(way, bindings=(*way.bindings, *relayed)))
        host.publish(msgspec.structs.replace(way, bindings=relayed))
        return True

    def _no_longer_relayed(self, host: Host, mine: Sequence[Endpoint]) -> tuple[Binding, ...]:
        """Take the relayed ports from whom they lead to: there is a way outside with IPv6 now."""
        way = next((self._now(e) for e in mine if any(b.relayed for b in self._now(e).bindings)), None)
        if way is None:
            return ()
        relayed = tuple(b for b in way.bindings if b.relayed)
        host.unpublish(msgspec.structs.replace(way, bindings=relayed))
        self._replace(msgspec.structs.replace(way, bindings=tuple(b for b in way.bindings if not b.relayed)))
        return tuple(msgspec.structs.replace(b, relayed=False) for b in relayed)

    def _now(self, endpoint: Endpoint) -> Endpoint:
        return self._networks[endpoint.network_id].endpoints[endpoint.container_id]

    def _replace(self, changed: Endpoint) -> None:
        self._networks[changed.network_id].endpoints[changed.container_id] = changed
        self._state.add(changed)


def _reserve(
    host: Host, request: EndpointRequest, record: r.NetworkRecord, families: tuple[int, ...] | None = None
) -> tuple[Binding, ...]:
    """Hold the host's ports, for the families of which this network is the gateway."""
    if families is None:
        used = {4: request.gateway4 and record.ipv4, 6: request.gateway6 and record.ipv6}
        families = tuple(version for version in (4, 6) if used[version])
    if not request.ports or not families or record.driver != r.BRIDGE or record.internal:
        return ()
    routed = [v for v in families if record.mode(v) == r.ROUTED]
    direct = tuple(
        Binding(q.proto, q.container_port, ANY[v], 0)
        for q in request.ports
        for v in routed
        if q.host_ip in ("", ANY[v])
    )
    relayed = families == (4,) and not routed and not request.outside6
    try:
        taken = host.ports.reserve(
            request.ports, owner=request.label, families=[v for v in families if v not in routed], relayed=relayed
        )
        return direct + taken
    except KetchError as e:
        what = f"driver failed programming external connectivity on endpoint {request.label}"
        raise type(e)(f"{what}: {e.message}", hint=e.hint) from e


def _unwire(host: Host, gone: Endpoint) -> None:
    if gone.veth:  # other links are in the container's namespace and go with it
        host.reaper.delete(gone.veth)


def _unwire_now(gone: Endpoint, rtnl_fd: int) -> None:
    with endpoint.inside(None, rtnl_fd) as container:
        endpoint.unwire(container, gone.ifname)


def _gateway(allocator: Allocator | None, record: r.NetworkRecord) -> str:
    if allocator is None or record.internal:
        return ""
    return allocator.pool.router


def _mac(wanted: str, address: str) -> str:
    """The hardware address: as requested, or made from the address."""
    if wanted:
        return ipam.format_mac(ipam.parse_mac(wanted))
    return ipam.format_mac(ipam.mac_for(address) if address else b"\x02\x42" + secrets.token_bytes(4))


def hint_of(error: OSError) -> str | None:
    """The hint for an error of the kernel."""
    if isinstance(error, PermissionError):
        return "ketchd needs CAP_NET_ADMIN: run it as root"
    return None
