"""Sandbox of a container: its interfaces, gateway, published ports, DNS names and files in /etc.

                      wire (start)                                unwire (end)
    monitor's netns ───────────────► eth0 … ethN, DNS, /etc files ─────────────► nothing
                                     ▲ join, leave (network connect and disconnect of a running container)

The first interface belongs to the network that the container was started with, the others follow by gateway priority
and name.  The way outside is the network with the highest priority among those that are not internal; of equals, the
first by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from typing import TYPE_CHECKING

from msgspec import Struct, field

from ketch.engine.model.records import EndpointIpam, EndpointSettings, PortBinding
from ketch.engine.networks import combinations, legacy_links, publishing
from ketch.engine.networks.dns_names import dns_names
from ketch.engine.networks.references import find
from ketch.engine.spec import bundle, etc_files, interface_settings
from ketch.errors import Conflict, InvalidArgument, NotFound
from ketch.failpoints import failpoint
from ketch.network.connections import EndpointRequest
from ketch.network.links.endpoint import open_rtnetlink
from ketch.network.live import WIRED
from ketch.network.model import record as r
from ketch.network.model.record import PREDEFINED
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ketch.engine.aio.serial_thread import SerialThread
    from ketch.engine.events.bus import EventBus
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.networks.dns_names import DnsNames
    from ketch.engine.networks.legacy_links import Links
    from ketch.engine.paths import ContainerPaths
    from ketch.engine.spec.etc_files import DnsDefaults
    from ketch.network.manager import NetworkManager
    from ketch.network.model.record import Endpoint, NetworkRecord

Descriptors = list[int]
log = logging.getLogger(__name__)


class Sandboxes(Struct, frozen=True, eq=False):
    """The sandboxes of all containers; ``manager`` is called on its own thread."""

    manager: NetworkManager
    thread: SerialThread
    store: ContainerStore
    live: LiveContainers
    paths: ContainerPaths
    events: EventBus
    links: Links
    names: DnsNames
    defaults: DnsDefaults
    host_gateway: Callable[[], Sequence[str]]  # addresses that containers are to know the host by, if not the bridge's
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    # -- start and end -------------------------------------------------------------------------

    async def wire(self, container: Container, netns_fd: int | None, rtnl_fd: int | None) -> Descriptors:
        """Connect a container that is about to start; returns descriptors that its monitor should keep for us."""
        kept: Descriptors = []
        if netns_fd is not None and rtnl_fd is not None and not container.host.network.is_another:
            kept = await self.thread.run(self._wire, container, netns_fd, rtnl_fd)
        self._name_unwired(container)
        self._write_files(container)
        return kept

    def _name_unwired(self, container: Container) -> None:
        """Give the endpoints of networks without interfaces an id."""
        for settings, record in self._unwired(container):
            settings.network_id, settings.endpoint_id = record.id, secrets.token_hex(32)

    def tell_unwired(self, container: Container, action: str) -> None:
        """Publish the events of networks without interfaces: `host` and `none`."""
        for _, record in self._unwired(container):
            self._event(container, record, action)

    def _unwired(self, container: Container) -> list[tuple[EndpointSettings, NetworkRecord]]:
        """The networks of a container that give it no interface: `host` and `none`."""
        found = self.records_of(container) if container.host.network.container is None else {}
        return [(container.networks[name], record) for name, record in found.items() if record.driver not in WIRED]

    def _wire(self, container: Container, netns_fd: int, rtnl_fd: int) -> Descriptors:
        """The part of `wire` that runs on the network's thread."""
        records = self._wired(container)
        if not records:
            self.manager.loopback_up(rtnl_fd)
            return []
        self.names.begin(container)
        gateway4, gateway6 = self._gateways(container, records)
        publishing.check_families(container, gateway4, gateway6)
        for record in records:
            request = self._request(container, record, gateway4 == record.id, gateway6 == record.id, bool(gateway6))
            endpoint = self.manager.connect(record.id, request, netns_fd, rtnl_fd)
            self._joined(container, record, endpoint)
        interface_settings.check_all_used(container, self.manager.endpoints_of(container.id))
        self._show(container)
        kept = self._serve_names(container, records, netns_fd)
        failpoint("start.names-served")
        return kept

    async def unwire(self, container: Container) -> None:
        """Release the sandbox of a container that ended, or whose start failed (see `tell_unwired`)."""
        await self.thread.run(self._unwire, container)
        container.ports = {}
        for settings in container.networks.values():
            _blank(settings)

    async def unwire_if_wired(self, container: Container) -> None:
        """`unwire`, if the container has anything."""
        if self.manager.endpoints_of(container.id):
            await self.unwire(container)

    def _unwire(self, container: Container) -> None:
        self.names.forget(container.id)
        with Undo() as steps:
            steps.callback(self.manager.disconnect, container.id)
            for endpoint in self.manager.endpoints_of(container.id):
                steps.callback(self._left, container, self.manager.get(endpoint.network_id))

    # -- a running container -------------------------------------------------------------------

    async def join(self, container: Container, record: NetworkRecord) -> None:
        """Give a running container one more interface."""
        kept = await self.thread.run(self._join, container, record)
        monitor = self.live.of(container.id).monitor
        if kept and monitor is not None:
            monitor.keep(kept)
        self.rewrite_files(container)

    def _join(self, container: Container, record: NetworkRecord) -> Descriptors:
        with _entered(container) as (netns_fd, rtnl_fd), Undo() as undo:
            endpoint = self.manager.connect(record.id, self._request(container, record), netns_fd, rtnl_fd)
            undo.callback(self.manager.disconnect, container.id, record.id, rtnl_fd)
            self._joined(container, record, endpoint)
            undo.callback(self._left, container, record)
            records = self._wired(container)
            self._choose_gateways(container, records, rtnl_fd)
            self._show(container)
            kept = self._serve_names(container, records, netns_fd)
            undo.pop_all()
        return kept

    async def leave(self, container: Container, record: NetworkRecord) -> None:
        """Take an interface from a running container."""
        await self.thread.run(self._leave, container, record)
        _blank(container.networks[record.name])
        self.rewrite_files(container)

    def _leave(self, container: Container, record: NetworkRecord) -> None:
        with _entered(container) as (netns_fd, rtnl_fd):
            self._left(container, record)
            self.manager.disconnect(container.id, record.id, rtnl_fd)
            records = [r for r in self._wired(container) if r.id != record.id]
            self._choose_gateways(container, records, rtnl_fd)
            self._show(container)
            self._serve_names(container, records, netns_fd)

    def _choose_gateways(self, container: Container, records: Sequence[NetworkRecord], rtnl_fd: int) -> None:
        gateway4, gateway6 = self._gateways(container, records)
        outside = next((r for r in records if r.id in (gateway4, gateway6)), None)
        request = EndpointRequest(
            container_id=container.id,
            label=_label(container),
            outside6=bool(gateway6),
            ports=publishing.requests(container, outside) if outside is not None else (),
        )
        self.manager.set_gateways(request, gateway4, gateway6, rtnl_fd)

    async def renamed(self, container: Container) -> None:
        """Replace a running container's names after a rename."""
        await self.thread.run(self._renamed, container)

    def _renamed(self, container: Container) -> None:
        for endpoint in self.manager.endpoints_of(container.id):
            self._joined(container, self.manager.get(endpoint.network_id), endpoint, event=False)

    # -- after a restart of the daemon -----------------------------------------------------------

    async def adopt(self, container: Container, kept: Sequence[int] | None) -> Descriptors:
        """Serve DNS again for a container that kept running; ``kept`` are its sockets, if its monitor has them.

        None: somebody has, and cannot be asked for them yet.
        """
        return await self.thread.run(self._adopt, container, kept)

    def _adopt(self, container: Container, kept: Sequence[int] | None) -> Descriptors:
        by_id = {e.network_id: e for e in self.manager.endpoints_of(container.id)}
        records = [r for r in self._wired(container) if r.id in by_id]
        if len(records) < len(by_id):
            self._take_unknown(container, records)
        if not container.own_hosts:  # a start whose end was not written down
            container.own_hosts = etc_files.address_lines(container, self.manager.endpoints_of(container.id))
            container.own_resolv = self._files(container)["resolv.conf"]
        self._show(container)
        for record in records:
            self._joined(container, record, by_id[record.id], event=False)
        if kept is None or (all(record.is_default for record in records) and not kept):
            return []
        with _entered(container) as (netns_fd, _):
            return self._serve_names(container, records, netns_fd, kept)

    def _take_unknown(self, container: Container, records: Sequence[NetworkRecord]) -> None:
        """Remove interfaces that are not in the record: a crash interrupted a connect or disconnect."""
        known = {record.id for record in records}
        unknown = [e for e in self.manager.endpoints_of(container.id) if e.network_id not in known]
        with _entered(container) as (_, rtnl_fd):
            for endpoint in unknown:
                self.manager.disconnect(container.id, endpoint.network_id, rtnl_fd)
            self._choose_gateways(container, records, rtnl_fd)
        container.own_hosts += etc_files.address_lines(container, unknown)
        self.rewrite_files(container)

    def close(self) -> None:
        """Stop serving DNS; containers keep their networks."""
        self.names.close()

    # -- parts -----------------------------------------------------------------------------------

    def _wired(self, container: Container) -> list[NetworkRecord]:
        """The networks that give the container an interface, in the order of their interfaces (NotFound)."""
        first = container.host.network.network
        found = []
        for name, settings in container.networks.items():
            record = self.record_of(name, settings)
            settings.network_id = record.id
            if record.driver in WIRED:
                found.append((name not in (first, container.host.network_mode), -settings.gw_priority, name, record))
        return [entry[3] for entry in sorted(found, key=lambda entry: entry[:3])]

    def check_start(self, container: Container) -> None:
        """Check that a container can start with its networks (NotFound, InvalidArgument, PermissionDenied)."""
        if container.host.network.container is None:
            found = {name: self.record_of(name, settings) for name, settings in container.networks.items()}
            combinations.check_start(container, found, self.manager)

    def records_of(self, container: Container) -> dict[str, NetworkRecord]:
        """The networks of a container that are there, by the names in its record."""
        found = {}
        for name, settings in container.networks.items():
            with contextlib.suppress(NotFound, InvalidArgument):
                found[name] = self.record_of(name, settings)
        return found

    def record_of(self, name: str, settings: EndpointSettings) -> NetworkRecord:
        """The network of a container's settings, by the recorded id (NotFound)."""
        if settings.network_id:
            with contextlib.suppress(NotFound):  # removed since; one of the same name may have taken its place
                known = self.manager.get(settings.network_id)
                if name not in PREDEFINED or (known.retired and settings.endpoint_id):
                    return known
        return find(self.manager, name)

    @staticmethod
    def _gateways(container: Container, records: Sequence[NetworkRecord]) -> tuple[str, str]:
        """Ids of the gateway networks for IPv4 and IPv6; empty: none."""
        outside = sorted(
            (-container.networks[record.name].gw_priority, record.name, record)
            for record in records
            if not record.internal
        )
        first4 = next((record.id for _, _, record in outside if record.ipv4), "")
        first6 = next((record.id for _, _, record in outside if record.ipv6), "")
        return first4, first6

    def _request(
        self,
        container: Container,
        record: NetworkRecord,
        gateway4: bool = False,
        gateway6: bool = False,
        outside6: bool = False,
    ) -> EndpointRequest:
        settings = container.networks[record.name]
        config = settings.ipam_config or EndpointIpam()
        mac = container.desired_macs.get(record.name, "")
        return EndpointRequest(
            container_id=container.id,
            label=_label(container),
            ip=config.ipv4 or "",
            ip6=config.ipv6 or "",
            mac=mac,
            ifname=(settings.driver_opts or {}).get(r.ENDPOINT_IFNAME, ""),
            gateway4=gateway4,
            gateway6=gateway6,
            outside6=outside6,
            ports=publishing.requests(container, record) if gateway4 or gateway6 else (),
            sysctls=interface_settings.wanted(container, settings),
        )

    def _joined(self, container: Container, record: NetworkRecord, endpoint: Endpoint, *, event: bool = True) -> None:
        settings = container.networks[record.name]
        settings.dns_names = dns_names(container, settings) if not record.is_default else None
        if not record.is_default:
            names = [name for name in settings.dns_names or () if name]
            self.names.join(record, endpoint, names, self._links_of(settings))
        if event:
            self._loop.call_soon_threadsafe(self._event, container, record, "connect")

    def _left(self, container: Container, record: NetworkRecord) -> None:
        if not record.is_default:
            self.names.leave(record.id, container.id)
        self._loop.call_soon_threadsafe(self._event, container, record, "disconnect")

    def _event(self, container: Container, record: NetworkRecord, action: str) -> None:
        attributes = {"container": container.id, "name": record.name, "type": record.driver}
        self.events.publish("network", action, record.id, attributes)

    def _links_of(self, settings: EndpointSettings) -> dict[str, str]:
        """A container's private aliases of others in a user-defined network, with their names."""
        found = {}
        for target, alias in (legacy_links.parse(link) for link in settings.links or ()):
            found[alias] = self.store.get(target).name if self.store.has(target) else target
        return found

    def _serve_names(
        self, container: Container, records: Sequence[NetworkRecord], netns_fd: int, kept: Sequence[int] | None = None
    ) -> Descriptors:
        if kept is None and self.live.of(container.id).pursuit is not None:
            return []  # its monitor may have the sockets; `adopt` comes when it can be asked
        kept = kept or ()
        if all(record.is_default for record in records) and not kept and not self.names.serves(container.id):
            return []  # (what is open stays open: the monitor has copies, and it may join such a network again)
        outside = any(not record.internal for record in records)
        servers = self.names.servers(container, leads_outside=outside)
        return list(self.names.serve(container.id, netns_fd, servers, kept=kept))

    def _show(self, container: Container) -> None:
        """Update the record from the endpoints, for inspect and ps."""
        container.ports = {}
        for endpoint in self.manager.endpoints_of(container.id):
            name = self.manager.get(endpoint.network_id).name
            if (settings := container.networks.get(name)) is not None:
                _fill(settings, endpoint)
            for port, bindings in endpoint.ports.items():
                shown = [PortBinding(host_ip=b["HostIp"], host_port=b["HostPort"]) for b in bindings]
                container.ports.setdefault(port, []).extend(shown)

    # -- files in /etc ---------------------------------------------------------------------------

    def _write_files(self, container: Container) -> None:
        directory, mode = self.paths.directory(container.id), container.host.network
        if mode.container is not None:
            contents = etc_files.read(self.paths.directory(self.store.get(mode.container).id))
        elif mode.is_host:
            contents = etc_files.of_host_network(container, self.defaults, self._gateway_addresses(()))
        else:
            contents = self._files(container)
            container.own_hosts = self._own_lines(container)
            container.own_resolv = contents["resolv.conf"]
        etc_files.write(directory, contents)

    def _files(self, container: Container) -> dict[str, str]:
        endpoints = self.manager.endpoints_of(container.id)
        own_resolver = any(not self.manager.get(e.network_id).is_default for e in endpoints)
        return etc_files.of_container(
            container,
            self._own_lines(container),
            self.defaults,
            self._gateway_addresses(endpoints),
            own_resolver=own_resolver,
        )

    def _own_lines(self, container: Container) -> str:
        endpoints = self.manager.endpoints_of(container.id)
        return self.links.hosts(container) + etc_files.address_lines(container, endpoints)

    def rewrite_files(self, container: Container) -> None:
        """Rewrite our lines of hosts, and resolv.conf unless edited, after a change of networks.

        The change itself is made: what cannot be written (a full disk, a directory that is gone) is told in the log.
        """
        directory = self.paths.directory(container.id)
        now, then = etc_files.read(directory), container.own_hosts
        wanted, lines = self._files(container), self._own_lines(container)
        contents = {"hosts": etc_files.exchange_lines(now["hosts"], then, lines)}
        if now["resolv.conf"] == container.own_resolv:
            contents["resolv.conf"] = wanted["resolv.conf"]
        try:
            etc_files.write(directory, contents)
        except OSError as e:
            log.warning("container %s keeps the names that it had: %s", container.id[:12], e)
            return
        container.own_hosts = lines
        container.own_resolv = contents.get("resolv.conf", container.own_resolv)

    def _gateway_addresses(self, endpoints: Sequence[Endpoint]) -> Sequence[str]:
        """The addresses of ``host-gateway``: the host's that the container can reach, at most one a family."""
        if addresses := self.host_gateway():
            return addresses
        default = next((n for n in self.manager.list() if n.is_default), None)
        if default is None:
            return [e.gateway for e in endpoints if e.gateway][:1]
        pools = [default.pool(4), default.pool(6) if default.ipv6 else None]
        return [pool.gateway for pool in pools if pool is not None and pool.gateway]


def _label(container: Container) -> str:
    short, name = container.id[:12], bundle.hostname(container)
    return f"{container.name} ({short})" if name in (short, container.name) else f"{container.name} ({name}, {short})"


def _fill(settings: EndpointSettings, endpoint: Endpoint) -> None:
    settings.endpoint_id, settings.network_id = endpoint.endpoint_id, endpoint.network_id
    settings.ip_address, settings.ip_prefix_len, settings.gateway = endpoint.ip, endpoint.prefix_len, endpoint.gateway
    settings.global_ipv6_address, settings.global_ipv6_prefix_len = endpoint.ip6, endpoint.prefix_len6
    settings.ipv6_gateway, settings.mac_address = endpoint.gateway6, endpoint.mac


def _blank(settings: EndpointSettings) -> None:
    settings.gateway = settings.ip_address = settings.endpoint_id = settings.mac_address = ""
    settings.global_ipv6_address = settings.ipv6_gateway = ""
    settings.ip_prefix_len = settings.global_ipv6_prefix_len = 0


@contextlib.contextmanager
def _entered(container: Container) -> Iterator[tuple[int, int]]:
    """Descriptors of a running container's network namespace, and of a rtnetlink socket in it."""
    try:
        netns_fd = os.open(f"/proc/{container.state.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError) as e:  # the last: it is being reaped
        raise Conflict(f"container {container.id} is not running: it has ended just now") from e
    try:
        with open_rtnetlink(netns_fd) as rtnl:
            yield netns_fd, rtnl.fileno()
    finally:
        os.close(netns_fd)
