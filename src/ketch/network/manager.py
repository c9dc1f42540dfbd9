"""The default network: a bridge, its addresses, its firewall table and the containers connected to it.

    setup ─► reconcile(live containers) ─► connect/disconnect … ─► teardown (or just close: containers keep working)

The sockets belong to the network namespace of the thread that calls ``setup``.  One lock orders everything: the watch
over the firewall's table has its own thread.
An endpoint's row is written before anything is made in the kernel and deleted after all of it is gone, so that
``reconcile`` finds whatever a crash left half-done.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import secrets
import threading
from typing import TYPE_CHECKING

from ketch.errors import Conflict, InvalidArgument, KetchError
from ketch.network import bridge as bridges
from ketch.network import endpoint, forwarding, ipam, links, sysctl
from ketch.network.endpoint import Endpoint
from ketch.network.firewall import Firewall, check_name
from ketch.network.hostports import HostPorts
from ketch.network.netlink import Netlink
from ketch.network.reaper import Reaper
from ketch.network.state import NetworkRow, NetworkState
from ketch.network.watch import TableWatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ketch.network.ports import PortRequest
    from ketch.storage.db import Database

log = logging.getLogger(__name__)

MAX_INTERFACE_NAME = 15


class NetworkManager:
    """One bridge of one daemon; no I/O before ``setup``.

    ``subnet`` is the gateway's address with the prefix length; None keeps the one chosen before, or chooses a
    free one.  ``table`` defaults to a name made from the bridge's.
    """

    def __init__(
        self,
        db: Database,
        *,
        bridge: str = "ketch0",
        subnet: str | None = None,
        table: str | None = None,
        mtu: int = 1500,
    ) -> None:
        if len(bridge) > MAX_INTERFACE_NAME:
            raise InvalidArgument(f"invalid bridge name `{bridge}`: longer than {MAX_INTERFACE_NAME} characters")
        self._bridge = check_name(bridge)
        self._table = check_name(table or ("ketch" if bridge == "ketch0" else f"ketch-{bridge}"))
        self._wanted = ipam.parse_subnet(subnet) if subnet else None
        self._mtu = mtu or 1500
        self._state = NetworkState(db, bridge)
        self._host_ports = HostPorts()
        self._endpoints: dict[str, Endpoint] = {}
        self._open = contextlib.ExitStack()
        self._lock = threading.RLock()
        self._watch: TableWatch | None = None

    # -- the network as a whole ----------------------------------------------------------------

    @property
    def network_id(self) -> str:
        """64 hexadecimal digits, the same for the life of the data root (known after ``setup``)."""
        return self._row.id

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        """The containers' subnet (known after ``setup``)."""
        return self._row.gateway.network

    @property
    def gateway(self) -> ipaddress.IPv4Address:
        """The bridge's own address (known after ``setup``)."""
        return self._row.gateway.ip

    def setup(self) -> None:
        """Make or adopt bridge, kernel settings and table; idempotent.  Endpoints from before keep working."""
        self.close()
        with self._lock, contextlib.ExitStack() as opened:
            opened.enter_context(bridges.claim(self._bridge))
            self._rtnl = opened.enter_context(Netlink())
            self._reaper = opened.enter_context(Reaper())
            opened.callback(self._host_ports.close)
            self._firewall = Firewall(self._table, self._bridge)
            try:
                with bridges.turn():
                    self._row = self._load_row()
                    self._link = bridges.ensure(self._rtnl, self._bridge, self._row.gateway, self._mtu, self._row.id)
                self._endpoints = self._state.endpoints(self._row)
                self._taken = {int(self.gateway), *(int(ipaddress.IPv4Address(e.ip)) for e in self._endpoints.values())}
                sysctl.prepare_bridge(self._bridge)
                self._enable_forwarding()
            except OSError as e:
                raise KetchError(f"set up bridge `{self._bridge}`: {e}", hint=_hint(e)) from e
            self._install()
            self._watch = TableWatch(self._table, self._restore_table)
            self._open = opened.pop_all()

    def close(self) -> None:
        """Let go of the bridge without changing anything: connected containers keep their network."""
        if self._watch is not None:
            self._watch.close()  # before taking the lock, which it may be waiting for
        with self._lock:
            self._open.close()

    def teardown(self) -> None:
        """Disconnect everything; remove table and bridge (not one that the administrator made)."""
        if self._watch is not None:
            self._watch.close()
        with self._lock:
            self._teardown()

    def _teardown(self) -> None:
        for container_id in list(self._endpoints):
            self.disconnect(container_id)
        with contextlib.ExitStack() as steps:
            steps.callback(self.close)
            if bridges.is_ours(self._link):
                steps.callback(endpoint.unwire, self._rtnl, self._bridge)
            steps.callback(forwarding.restore, self._rtnl, self._row.unforwarded, self._bridge)
            steps.callback(self._reaper.drain)
            steps.callback(self._firewall.remove)

    def reconcile(self, live_container_ids: Iterable[str]) -> None:
        """Remove what belongs to no live container; hold the ports of those that live.  Waits for the removal."""
        with self._lock:
            self._reconcile(set(live_container_ids))

    def _reconcile(self, live: set[str]) -> None:
        for container_id in [c for c in self._endpoints if c not in live]:
            log.info("network: remove what container %s left behind", container_id[:12])
            self.disconnect(container_id)
        for kept in self._endpoints.values():
            self._host_ports.reopen(kept.bindings)
        if bridges.is_ours(self._link):
            known = {e.veth for e in self._endpoints.values()}
            for stray in bridges.port_names(self._rtnl, self._bridge):
                if stray not in known:
                    self._reaper.delete(stray)
        self._reaper.drain()

    def _load_row(self) -> NetworkRow:
        row = self._state.load()
        if row is None:
            return self._state.create(self._wanted or self._choose())
        if self._wanted is not None and self._wanted != row.gateway:
            attached = bridges.port_names(self._rtnl, self._bridge)
            if any(e.veth in attached for e in self._state.endpoints(row).values()):
                raise Conflict(
                    f"give `{self._bridge}` the subnet of {self._wanted}: containers use {row.gateway}",
                    hint="start with the old subnet, stop the containers, then change it",
                )
            row.gateway, row.last_ip = self._wanted, int(self._wanted.ip)
            self._state.save(row)
        return row

    def _choose(self) -> ipaddress.IPv4Interface:
        return ipam.choose_subnet(bridges.used_networks(self._rtnl, self._bridge))

    def _enable_forwarding(self) -> None:
        note = forwarding.enable(self._rtnl, self._row.unforwarded, self._bridge)
        if note != self._row.unforwarded:
            self._row.unforwarded = note
            self._state.save(self._row)

    def _install(self) -> None:
        names = forwarding.interfaces(self._row.unforwarded)
        self._firewall.install(self.subnet, self._endpoints.values(), names)

    # -- one container -------------------------------------------------------------------------

    def connect(
        self,
        container_id: str,
        netns_fd: int,
        rtnl_fd: int | None,
        *,
        hostname: str = "",
        ports: Sequence[PortRequest] = (),
        mac: str | None = None,
        ip: str | None = None,
    ) -> Endpoint:
        """Give a container its interface, address, route and published ports; all of it or nothing.

        The file descriptors stay the caller's.  ``rtnl_fd`` may be None (slower).  A ``mac`` of the form that is made
        here from another address is replaced.  Raises InvalidArgument, Conflict,
        ResourceExhausted, or KetchError for a host port that is taken.
        """
        short = container_id[:12]
        label = f"{hostname} ({short})" if hostname not in ("", short) else short
        with self._lock, contextlib.ExitStack() as undo:
            self.disconnect(container_id)
            address = self._address(ip)
            self._taken.add(address)
            undo.callback(self._taken.discard, address)
            try:
                bindings = self._host_ports.reserve(ports)
            except KetchError as e:
                what = f"driver failed programming external connectivity on endpoint {label}"
                raise type(e)(f"{what}: {e.message}", hint=e.hint) from e
            undo.callback(self._host_ports.release, bindings)
            endpoint_id = secrets.token_hex(32)
            made = Endpoint(
                container_id=container_id,
                endpoint_id=endpoint_id,
                network_id=self._row.id,
                ip=str(ipaddress.IPv4Address(address)),
                prefix_len=self.subnet.prefixlen,
                gateway=str(self.gateway),
                mac=ipam.format_mac(self._mac(mac, address)),
                veth=f"veth{endpoint_id[:8]}",
                bindings=bindings,
            )
            self._state.add(made, address if ip is None else self._row.last_ip)
            undo.callback(self._state.remove, container_id)
            try:
                endpoint.wire(self._rtnl, made, bridge=self._link, mtu=self._mtu, netns_fd=netns_fd, rtnl_fd=rtnl_fd)
                undo.callback(self._reaper.delete, made.veth)
                self._endpoints[container_id] = made
                undo.callback(self._endpoints.pop, container_id, None)
                self._publish(made)
            except OSError as e:
                raise KetchError(f"connect container {label} to `{self._bridge}`: {e}", hint=_hint(e)) from e
            undo.pop_all()
        if ip is None:
            self._row.last_ip = address
        return made

    def disconnect(self, container_id: str) -> None:
        """Take everything back; idempotent.  The kernel finishes removing the interface a moment later."""
        with self._lock, contextlib.ExitStack() as steps:
            gone = self._endpoints.pop(container_id, None)
            if gone is None:
                return
            steps.callback(self._taken.discard, int(ipaddress.IPv4Address(gone.ip)))
            steps.callback(self._state.remove, container_id)
            steps.callback(self._host_ports.release, gone.bindings)
            steps.callback(self._reaper.delete, gone.veth)
            steps.callback(self._unpublish, gone)

    def endpoint(self, container_id: str) -> Endpoint | None:
        """The container's endpoint, or None when it is not connected."""
        return self._endpoints.get(container_id)

    def loopback_up(self, rtnl_fd: int | None, netns_fd: int | None = None) -> None:
        """Bring up ``lo`` of a container that has no other interface (``--network none``)."""
        with endpoint.inside(netns_fd, rtnl_fd) as container:
            container.run([links.set_up(index=links.LOOPBACK_INDEX)])

    def stats(self, container_id: str) -> dict[str, dict[str, int]]:
        """Counters of the container's interfaces from its own point of view; empty when it is not connected."""
        known = self._endpoints.get(container_id)
        if known is None:
            return {}
        try:
            with self._lock:
                link = links.get_link(self._rtnl, known.veth, stats=True)
        except OSError:
            return {}
        # What this end of the pair receives is what the container has sent.
        counters = dict(zip(links.STATS_NAMES, link.stats, strict=True))
        return {known.ifname: {_OTHER_END[name]: value for name, value in counters.items()}}

    def _address(self, wanted: str | None) -> int:
        if not wanted:
            return ipam.next_address(self.subnet, self._taken, self._row.last_ip)
        address = ipam.parse_address(wanted, self.subnet)
        if address in self._taken:
            raise Conflict(f"address {wanted} is already in use", hint="leave it out to get a free one")
        return address

    def _mac(self, wanted: str | None, address: int) -> bytes:
        """The hardware address: as requested, unless it is the one that belongs to another address of the subnet.

        A caller that repeats what a container had before would otherwise give two containers the same one.
        """
        own = ipam.mac_for(address)
        if not wanted:
            return own
        packed = ipam.parse_mac(wanted)
        made_here = packed[:2] == own[:2] and ipaddress.IPv4Address(packed[2:]) in self.subnet
        return own if made_here else packed

    def _publish(self, made: Endpoint) -> None:
        if not made.bindings:
            return
        try:
            self._firewall.publish(made)
        except KetchError:
            # The table was removed a moment ago (see `watch`): put it back, this endpoint included.
            self._install()
        self._forget_flows(made)

    def _unpublish(self, gone: Endpoint) -> None:
        if not gone.bindings:
            return
        try:
            self._firewall.unpublish(gone)
        except KetchError:
            self._install()
        self._forget_flows(gone)

    def _restore_table(self) -> None:
        with self._lock:
            if self._firewall.exists():
                return
            log.warning("network: nftables table `%s` was removed by another program; putting it back", self._table)
            try:
                self._install()
            except KetchError as e:
                log.error("network: %s", e.message)

    def _forget_flows(self, changed: Endpoint) -> None:
        udp = {b.host_port for b in changed.bindings if b.proto == "udp"}
        if udp:
            self._reaper.forget_udp(udp, changed.ip)


_OTHER_END = {n: ("tx" if n.startswith("rx") else "rx") + n[2:] for n in links.STATS_NAMES}


def _hint(error: OSError) -> str | None:
    if isinstance(error, PermissionError):
        return "ketchd needs CAP_NET_ADMIN: run it as root"
    return None
