"""The networks of one daemon: making, adoption after a restart, removal, connection of containers.

    setup ─► reconcile(live containers) ─► create/connect/… ─► teardown (or just close: containers keep working)

One lock orders everything: the watch over the firewall's table has its own thread.
"""

from __future__ import annotations

import logging
import secrets
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from ketch.errors import AlreadyExists, InvalidArgument, KetchError, NotFound, PermissionDenied
from ketch.failpoints import failpoint
from ketch.linux.netlink import addresses, links
from ketch.network import completion, default_network, locks, reattach
from ketch.network.connections import MAX_INTERFACE_NAME, Connections, EndpointRequest, hint_of
from ketch.network.firewall.ruleset import check_name
from ketch.network.host import Host, HostSettings
from ketch.network.links import bridge as bridges
from ketch.network.links import counters, endpoint, parent_links
from ketch.network.links import owner as marks
from ketch.network.live import LiveNetwork
from ketch.network.model import ipam
from ketch.network.model import record as r
from ketch.network.model.record import Endpoint, NetworkRecord, Pool
from ketch.network.model.state import NetworkState
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ketch.network.model.ipam import Base
    from ketch.network.ports.outside import Outside
    from ketch.storage.database.db import Database

log = logging.getLogger(__name__)
Records = list[NetworkRecord]
Endpoints = list[Endpoint]
Pools = list[Pool]
Networks = list[addresses.Network]
Strings = list[str]


class NetworkManager:
    """All networks of one daemon; no I/O before ``setup``.  ``bases`` are where subnets are chosen from."""

    def __init__(self, db: Database, settings: HostSettings, *, bases: Sequence[Base] = ipam.DEFAULT_BASES) -> None:
        check_name(settings.table)
        self._settings = settings
        self._owner = settings.owner
        self._bases = tuple(bases)
        self._state = NetworkState(db)
        self._networks: dict[str, LiveNetwork] = {}
        self._connections = Connections(self._state, self._networks)
        self._lock = threading.RLock()
        self._opened: Host | None = None

    @property
    def outside(self) -> Outside | None:
        """The machine's own network namespace, if the bridges are in another one."""
        return self._settings.outside

    @property
    def _host(self) -> Host:
        assert self._opened is not None, "setup was not called"
        return self._opened

    # -- the daemon's life ---------------------------------------------------------------------

    def setup(self) -> None:
        """Make or adopt every known network; idempotent.  Existing endpoints keep working."""
        self.close()
        with self._lock, Undo() as undo:
            self._opened = Host(self._settings, self._state, self._networks, self._lock)
            undo.callback(self.close)
            self._networks.clear()
            for record, last in self._state.networks():
                self._networks[record.id] = LiveNetwork.of(record, last)
            for known in self._state.endpoints():
                if known.network_id in self._networks:  # else its row cannot be read
                    self._networks[known.network_id].adopt(known)
            for network in self._networks.values():
                try:
                    self._up(network)
                except (KetchError, OSError) as e:
                    if network.record.is_default:
                        raise
                    log.error("network `%s` is not available: %s", network.record.name, e)
            self._host.take_table()
            reattach.attach(self._host.rtnl, self._networks.values())
            undo.pop_all()

    def close(self) -> None:
        """Close without changing the host: connected containers keep their network."""
        if self._opened is not None:
            self._opened.stop_watching()  # before taking the lock, which it may be waiting for
            with self._lock:
                self._opened.close()
                self._opened = None

    def teardown(self) -> None:
        """Disconnect everything; remove table and links from the host (not the networks' records)."""
        self._host.stop_watching()
        with self._lock, Undo() as steps:
            steps.callback(self.close)
            own = self._host.own_links
            steps.callback(self._host.restore_forwarding, own)
            for network in self._networks.values():
                steps.callback(self._down, network)
            steps.callback(self._host.reaper.drain)
            steps.callback(self._host.remove_table)
            for network in self._networks.values():
                for container_id in list(network.endpoints):
                    steps.callback(self._connections.disconnect, self._host, network, container_id)

    def reconcile(self, live_container_ids: Iterable[str]) -> None:
        """Remove the endpoints of containers that do not run; hold the ports of the others.  Waits for the removal."""
        live = set(live_container_ids)
        with self._lock:
            for network in self._networks.values():
                for container_id in [c for c in network.endpoints if c not in live]:
                    log.info("network: remove what container %s left behind", container_id[:12])
                    self._connections.disconnect(self._host, network, container_id)
                for kept in network.endpoints.values():
                    self._host.ports.reopen(kept.bindings, kept.container_id[:12])
                    self._relay_again(kept)
            self._drop_retired()
            self._remove_strays()
            self._host.reaper.drain()

    def _remove_strays(self) -> None:
        """Delete the interfaces of interrupted removals, if they have our mark."""
        ours = {n.link.index for n in self._networks.values() if n.link is not None and bridges.is_ours(n.link)}
        known = {e.veth for n in self._networks.values() for e in n.endpoints.values()}
        for link in links.list_links(self._host.rtnl):
            if link.master not in ours or link.name in known:
                continue
            mark = marks.of_link(link.alias)
            if mark is not None and mark.owner == self._owner and link.kind == "veth":
                self._host.reaper.delete(link.name)
            else:
                log.info("network: interface `%s` of a bridge is not ours and left alone", link.name)

    # -- networks ------------------------------------------------------------------------------

    def list(self) -> Records:
        """Every network, oldest first, apart from retired ones."""
        return [n.record for n in self._networks.values() if not n.record.retired]

    def get(self, network_id: str) -> NetworkRecord:
        """The network of a full id (NotFound)."""
        return self._live(network_id).record

    def endpoints(self, network_id: str) -> Endpoints:
        """The endpoints of a network."""
        return list(self._live(network_id).endpoints.values())

    def _live(self, network_id: str) -> LiveNetwork:
        try:
            return self._networks[network_id]
        except KeyError:
            raise NotFound(f"network {network_id} not found") from None

    def create(self, wanted: NetworkRecord) -> NetworkRecord:
        """Make a network; its id, link and subnets are chosen where ``wanted`` leaves them empty.

        Raises AlreadyExists for a name, PermissionDenied for a subnet that another network has, InvalidArgument.
        """
        with self._lock, locks.turn(), Undo() as undo:
            if any(record.name == wanted.name for record in self.list()):
                raise AlreadyExists(f"network with name {wanted.name} already exists")
            network_id = wanted.id or secrets.token_hex(32)
            record = completion.complete(wanted, network_id, self._pools(wanted), self._settings.mtu)
            completion.check_link(record, [n.record for n in self._networks.values()])
            network = LiveNetwork.of(record, {})
            self._state.save(record)
            undo.callback(self._state.delete, network_id)
            failpoint("network.row-written")
            self._networks[network_id] = network
            undo.callback(self._networks.pop, network_id, None)
            undo.callback(self._down, network)
            try:
                self._up(network)
            except OSError as e:
                raise KetchError(f"set up network `{record.name}`: {e}", hint=hint_of(e)) from e
            if record.driver == r.BRIDGE:
                failpoint("network.link-made")
                self._host.admit(network.segment())
                failpoint("network.admitted")
                undo.callback(self._host.dismiss, network.segment())
            undo.pop_all()
        return record

    def remove(self, network_id: str) -> None:
        """Remove a network that nobody is connected to (PermissionDenied otherwise)."""
        with self._lock, Undo() as steps:
            network = self._live(network_id)
            if network.endpoints:
                raise PermissionDenied(f"network {network.record.name} has active endpoints")
            steps.callback(self._state.delete, network_id)
            steps.callback(self._networks.pop, network_id)
            steps.callback(failpoint, "network.link-removed")
            steps.callback(self._down, network)
            steps.callback(failpoint, "network.dismissed")
            if network.record.driver == r.BRIDGE:
                steps.callback(self._host.dismiss, network.segment())

    def set_default(self, bridge: str, subnet: str | None, mtu: int, wanted: NetworkRecord) -> NetworkRecord:
        """Make the default network, or change it to the settings.

        ``subnet`` is the gateway's address with the prefix length; None keeps the one chosen before.
        """
        if len(bridge) > MAX_INTERFACE_NAME:
            raise InvalidArgument(f"invalid bridge name `{bridge}`: longer than {MAX_INTERFACE_NAME} characters")
        check_name(bridge)
        gateway = ipam.parse_subnet(subnet) if subnet else None
        pools = list(wanted.pools)
        if gateway is not None:
            pools.insert(0, Pool(subnet=str(gateway.network), gateway=str(gateway.ip), given=False))
        mtu = mtu or self._settings.mtu
        options = {
            r.OPTION_DEFAULT: "true",
            r.OPTION_ICC: "true",
            r.OPTION_MASQUERADE: "true",
            r.OPTION_BIND: "0.0.0.0",
            r.OPTION_NAME: bridge,
            r.OPTION_MTU: str(mtu),
            **wanted.options,
        }
        changed = _replace(wanted, pools=tuple(pools), options=options, link=bridge, mtu=mtu)
        with self._lock:
            known = self._default_on(bridge)
            if known is None:
                retired = [n.record for n in self._networks.values() if n.record.retired]
                return self.create(default_network.beside(retired, changed))
            changed = _replace(changed, id=known.record.id, created=known.record.created)
            changed = default_network.with_pools_before(changed, known.record)
            if changed == known.record:
                return changed
            if not known.endpoints:
                self.drop_default()
                return self.create(changed)
            return self._change(known, default_network.merged(known, changed))

    def _default_on(self, bridge: str) -> LiveNetwork | None:
        """The existing default network on this bridge; one on another bridge is retired."""
        everything = list(self._networks.values())
        current = next((n for n in everything if n.record.is_default and not n.record.retired), None)
        if current is not None and current.record.link == bridge:
            return current
        self.drop_default()
        back = next((n for n in everything if n.record.retired and n.record.link == bridge), None)
        if back is not None:
            back.record = _replace(back.record, retired=False)
            self._state.save(back.record)
        return back

    def _change(self, known: LiveNetwork, record: NetworkRecord) -> NetworkRecord:
        """Change the default network's settings; containers on it keep their addresses."""
        record = _replace(record, pools=tuple(self._pools(record, but=known)))
        if record == known.record:
            return record
        for container_id, member in known.endpoints.items():
            known.endpoints[container_id] = kept = default_network.remembering(member, known.record)
            self._state.add(kept)
        network = known.changed(record)
        self._state.save(record)
        self._networks[record.id] = network
        self._up(network)
        self._host.install()
        return record

    def drop_default(self) -> None:
        """Remove the default network; while it is in use it is retired."""
        with self._lock:
            for network in [n for n in self._networks.values() if n.record.is_default and not n.record.retired]:
                if not network.endpoints:
                    self.remove(network.record.id)
                    continue
                network.record = _replace(network.record, retired=True)
                self._state.save(network.record)

    def _relay_again(self, kept: Endpoint) -> None:
        """Copy to a container that kept running; where that fails, everything else of it works."""
        try:
            self._host.ports.relay(kept)
        except KetchError as e:
            log.warning("relay to container %s: %s", kept.container_id[:12], e)

    def _drop_retired(self) -> None:
        for network in [n for n in self._networks.values() if n.record.retired and not n.endpoints]:
            self.remove(network.record.id)

    def _pools(self, wanted: NetworkRecord, but: LiveNetwork | None = None) -> Pools:
        """The subnets of a new network: the given ones, and one for each family without.

        ``but``: the network that is to have them, when it exists already.
        """
        named = list(wanted.pools)
        subnets = [p.network for p in named]
        others = [p.network for n in self._networks.values() if n is not but for p in n.record.pools]
        if wanted.driver not in (r.HOST, r.NONE):
            for version, enabled in ((4, wanted.ipv4), (6, wanted.ipv6)):
                if enabled and not any(p.version == version and not p.kept for p in named):
                    subnet = ipam.choose_subnet([*others, *subnets, *self._used()], self._bases, version)
                    named.append(Pool(subnet=str(subnet), given=False))
        for number, pool in enumerate(named):
            taken = (*others, *(earlier.network for earlier in named[:number]))
            if any(o.version == pool.version and o.overlaps(pool.network) for o in taken):
                raise PermissionDenied(
                    "invalid pool request: Pool overlaps with other one on this address space",
                    hint=f"choose another subnet than {pool.subnet}",
                )
        settled = [p if wanted.driver == r.IPVLAN else completion.with_gateway(p) for p in named]
        for pool in settled:
            completion.check_auxiliary(pool, wanted.name)
        return settled

    def _used(self) -> Networks:
        used = bridges.used_networks(self._host.rtnl, self._host.own_links)
        return used + (self.outside.call(bridges.networks_here) if self.outside is not None else [])

    def _up(self, network: LiveNetwork) -> None:
        record = network.record
        if record.driver == r.BRIDGE:
            network.link = bridges.ensure(self._host.rtnl, record, self._owner)
            self._host.enable_forwarding(ipv6=False)
            if record.speaks_ipv6:
                self._host.enable_forwarding(ipv6=True)
        elif record.driver in (r.MACVLAN, r.IPVLAN):
            network.link = parent_links.ensure(self._host.rtnl, record, self._owner)

    def _down(self, network: LiveNetwork) -> None:
        link, network.link = network.link, None
        if link is None:
            return
        ours = (
            bridges.is_ours(link) if network.record.driver == r.BRIDGE else parent_links.is_ours(link, network.record)
        )
        shared = any(n.record.link == link.name and n is not network for n in self._networks.values())
        if ours and not shared:
            endpoint.unwire(self._host.rtnl, link.name)

    def repair(self) -> Strings:
        """Restore links, addresses and the table that others removed from the host; returns what was done."""
        done = []
        with self._lock:
            for network in self._networks.values():
                before = network.link
                self._up(network)
                if before is not None and network.link is not None and before.index != network.link.index:
                    done.append(f"made link {network.link.name} of network {network.record.name} again")
            done += reattach.attach(self._host.rtnl, self._networks.values())
            if self._host.own_links:
                if not self._host.installed_table().intact():
                    done.append(f"put firewall table {self._settings.table} back")
                done += self._host.install()
        return done

    def blockers(self) -> Strings:
        """Rules of the host's firewall that may block containers' traffic, a sentence each."""
        with self._lock:
            return self._host.blockers() if self._host.own_links else []

    # -- containers ----------------------------------------------------------------------------

    def connect(self, network_id: str, request: EndpointRequest, netns_fd: int, rtnl_fd: int | None) -> Endpoint:
        """Connect a container; see `Connections.connect`.  A link that others have removed is made again."""
        with self._lock:
            network = self._live(network_id)
            try:
                return self._connections.connect(self._host, network, request, netns_fd, rtnl_fd)
            except KetchError:
                if not reattach.lost(self._host.rtnl, network):
                    raise
            self._up(network)
            reattach.attach(self._host.rtnl, [network])
            return self._connections.connect(self._host, network, request, netns_fd, rtnl_fd)

    def disconnect(self, container_id: str, network_id: str = "", rtnl_fd: int | None = None) -> None:
        """Disconnect a container from one network, or from all; idempotent."""
        with self._lock, Undo() as steps:
            steps.callback(self._drop_retired)
            for network in [self._live(network_id)] if network_id else list(self._networks.values()):
                steps.callback(self._connections.disconnect, self._host, network, container_id, rtnl_fd)

    def set_gateways(self, request: EndpointRequest, gateway4: str, gateway6: str, rtnl_fd: int) -> None:
        """Change a container's gateway networks; see `Connections.set_gateways`."""
        with self._lock:
            self._connections.set_gateways(self._host, gateway4, gateway6, request, rtnl_fd)

    def endpoints_of(self, container_id: str) -> Endpoints:
        """A container's endpoints by their interfaces' names."""
        return self._connections.of(container_id)

    def loopback_up(self, rtnl_fd: int | None, netns_fd: int | None = None) -> None:
        """Bring up ``lo`` of a container that has no other interface (``--network none``)."""
        with endpoint.inside(netns_fd, rtnl_fd) as container:
            container.run([links.set_up(index=links.LOOPBACK_INDEX)])

    def counters(self, pids: Mapping[str, int]) -> dict[str, dict[str, dict[str, int]]]:
        """Counters of containers' interfaces by container and interface; ``pids``: a process of each container."""
        with self._lock:
            mine = [e for container_id in pids for e in self._connections.of(container_id)]
            return counters.read(self._host.rtnl, mine, pids)


def _replace(record: NetworkRecord, **changes: Any) -> NetworkRecord:
    return msgspec.structs.replace(record, **changes)
