"""Network service: the operations of the API on networks.

What a network is on this host is the network package's business (``ketch.network.manager``); here are Docker's names,
its rules about which network may be made, and which container may join.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, NoReturn

import msgspec
from msgspec import Struct

from ketch.engine.model.records import EndpointSettings
from ketch.engine.model.reports import check_removed
from ketch.engine.networks import combinations
from ketch.engine.networks.dns_names import dns_names
from ketch.engine.networks.endpoint_checks import address_of, check_settings
from ketch.engine.networks.references import find
from ketch.errors import InvalidArgument, KetchError, NotFound, PermissionDenied, UnclassifiedArgument
from ketch.failpoints import failpoint
from ketch.network.model import ipam
from ketch.network.model import record as r
from ketch.network.model.record import PREDEFINED, NetworkRecord
from ketch.notation import booleans, integers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ketch.engine.aio.serial_thread import SerialThread
    from ketch.engine.events.bus import EventBus
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.model.namespaces.mode import NamespaceMode
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.networks.sandbox import Sandboxes
    from ketch.network.manager import NetworkManager

Records = list[NetworkRecord]
Strings = list[str]
_DRIVER_OF = {"host": r.HOST, "none": r.NONE}


class NetworkService(Struct, frozen=True, eq=False):
    """All networks of the engine; ``manager`` is called on its own thread."""

    manager: NetworkManager
    thread: SerialThread
    store: ContainerStore
    live: LiveContainers
    events: EventBus
    sandboxes: Sandboxes
    default_options: dict[str, dict[str, str]]  # by driver, of new networks that do not say otherwise

    def list(self) -> Records:
        """Every network, oldest first."""
        return self.manager.list()

    def get(self, ref: str) -> NetworkRecord:
        """The network of an id, name, or unambiguous id prefix (NotFound, InvalidArgument)."""
        return find(self.manager, ref)

    def members(self, record: NetworkRecord) -> dict[str, Container]:
        """The running containers on a network, by id."""
        running = [c for c in self.store.all() if c.state.running]
        return {
            c.id: c
            for c in running
            if (settings := c.networks.get(record.name)) is not None and settings.network_id in ("", record.id)
        }

    async def ensure_predefined(self) -> None:
        """Make ``host`` and ``none`` (``bridge`` is made from the daemon's settings)."""
        names = {record.name for record in self.list()}
        for name, driver in _DRIVER_OF.items():
            if name not in names:
                record = NetworkRecord(id="", name=name, driver=driver, created=time.time_ns(), ipv4=True)
                await self.thread.run(self.manager.create, record)

    async def create(self, wanted: NetworkRecord) -> NetworkRecord:
        """Make a network; see `NetworkManager.create` for errors beyond Docker's own rules."""
        if wanted.config_from:
            wanted = self._configured(wanted)
        else:
            options = {**self.default_options.get(wanted.driver, {}), **wanted.options}
            wanted = msgspec.structs.replace(wanted, options=options)
        wanted = _check(wanted)
        record = await self.thread.run(self.manager.create, wanted)
        self._event(record, "create")
        return record

    def _configured(self, wanted: NetworkRecord) -> NetworkRecord:
        """A new network with the settings of the configuration network that it names (NotFound)."""
        source = next((n for n in self.list() if n.config_only and n.name == wanted.config_from), None)
        if source is None:
            raise NotFound(f'configuration network "{wanted.config_from}" does not exist')
        return msgspec.structs.replace(
            wanted,
            pools=source.unused,
            ipv4=source.ipv4,
            ipv6=source.ipv6,
            options=source.options,
            labels=source.labels,
            ipam_driver=source.ipam_driver,
            ipam_options=source.ipam_options,
        )

    async def remove(self, ref: str) -> None:
        """Remove a network that no running container is on (PermissionDenied otherwise)."""
        record = self.get(ref)
        if record.name in PREDEFINED:
            raise PermissionDenied(f"{record.name} is a pre-defined network and cannot be removed")
        if record.config_only and any(n.config_from == record.name for n in self.list()):
            raise PermissionDenied(
                f'error while removing network: configuration network "{record.name}" is in use',
                hint="remove the networks that are made from it first",
            )
        endpoints = await asyncio.to_thread(self.manager.endpoints, record.id)
        if endpoints:
            names = [
                f'name:"{self.store.ids[e.container_id].name}" id:"{e.endpoint_id[:12]}"'
                for e in endpoints
                if e.container_id in self.store.ids
            ]
            raise PermissionDenied(
                f"error while removing network: network {record.name} has active endpoints ({', '.join(names)})"
            )
        await self.thread.run(self.manager.remove, record.id)
        self._event(record, "destroy")

    async def prune(
        self, keep: Callable[[NetworkRecord], bool], *, dry_run: bool = False, without: Collection[str] = ()
    ) -> Records:
        """Remove the networks that no container refers to and ``keep`` does not hold; returns them.

        A ``dry_run`` removes none, and takes containers ``without`` as gone.
        """
        used = {name for c in self.store.all() for name in c.networks if c.id not in without}
        removed: Records = []
        failed: list[KetchError] = []
        for record in self.list():
            if record.name in PREDEFINED or record.config_only or record.name in used or keep(record):
                continue
            if not dry_run:
                try:
                    await self.thread.run(self.manager.remove, record.id)
                except KetchError as e:
                    failed.append(e)
                    continue
                self._event(record, "destroy")
            removed.append(record)
        if not dry_run:
            self.events.publish("network", "prune", "", {"reclaimed": "0"})
        check_removed("networks", failed)
        return removed

    async def repair(self) -> Strings:
        """Restore the parts of networks that other programs removed; returns what was done."""
        return await self.thread.run(self.manager.repair)

    async def blockers(self) -> Strings:
        """Rules of the host's firewall that may block containers' traffic, a sentence each."""
        return await self.thread.run(self.manager.blockers)

    async def connect(self, ref: str, container_ref: str, settings: EndpointSettings) -> None:
        """Connect a container to a network; a running one gets its interface at once.

        One that does not run may be connected to a network that is not there: that is an error of its start.
        """
        container = self.store.get(container_ref)
        async with self.live.of(container.id).lock:
            record = _found(self.manager, ref)
            if container.state.going:
                raise InvalidArgument(
                    f"container {container.id} is marked for removal and cannot be connected to a network"
                )
            if container.state.running and container.host.network.container is not None:
                raise InvalidArgument(combinations.NO_OTHERS)
            if not container.state.running:
                self._note(container, ref, record, settings)
            elif record is None:
                raise NotFound(f"network {ref} not found")
            else:
                await self._join(container, record, settings)
            failpoint("connect.wired")
            self.store.save(container)

    def _note(self, container: Container, ref: str, record: NetworkRecord | None, settings: EndpointSettings) -> None:
        """Write down a network for the next start; one that is there already is left as it is."""
        if record is None:
            container.networks.setdefault(ref, settings)
            return
        check_settings(record.name, record, settings)
        settings.network_id = record.id
        if record.name not in PREDEFINED:
            settings.dns_names = dns_names(container, settings)
        combinations.check_added(container, record, self.sandboxes.records_of(container))
        container.networks.setdefault(record.name, settings)

    async def _join(self, container: Container, record: NetworkRecord, settings: EndpointSettings) -> None:
        """Give a running container an interface (PermissionDenied, InvalidArgument)."""
        check_settings(record.name, record, settings)
        combinations.check_added(container, record, self.sandboxes.records_of(container))
        combinations.check_kind(record)
        if record.name in container.networks:
            raise PermissionDenied(f"endpoint with name {container.name} already exists in network {record.name}")
        settings.network_id = record.id
        container.networks[record.name] = settings
        try:
            await self.sandboxes.join(container, record)
        except BaseException:
            container.networks.pop(record.name, None)
            raise

    async def disconnect(self, ref: str, container_ref: str, *, force: bool = False) -> None:
        """Disconnect a container from a network."""
        if force and container_ref and not self.store.has(container_ref):
            left = self.get(ref).id
            if all(endpoint.container_id != container_ref for endpoint in self.manager.endpoints(left)):
                raise NotFound(f"endpoint {container_ref} not found")
            await self.thread.run(self.manager.disconnect, container_ref, left)
            return
        container = self.store.get(container_ref)
        record = _found(self.manager, ref)
        async with self.live.of(container.id).lock:
            if not container.state.running or (record is None and force):
                name = ref if record is None else record.name
                if name not in container.networks:
                    raise UnclassifiedArgument(f"container {container.id} is not connected to the network {name}")
                del container.networks[name]
                self.store.save(container)
            elif record is None:
                raise NotFound(f"network {ref} not found")
            else:
                await self._leave(container, record)

    async def _leave(self, container: Container, record: NetworkRecord) -> None:
        """Take the interface of a running container away."""
        if container.host.network.is_host and record.name == "host":
            raise InvalidArgument(
                "cannot disconnect container from host network - container was created in host network mode"
            )
        if record.name not in container.networks:
            raise UnclassifiedArgument(f"container {container.id} is not connected to network {record.name}")
        # The record first: an interface that it does not know is taken away at the next start.
        settings = container.networks.pop(record.name)
        self.store.save(container)
        failpoint("disconnect.saved")
        container.networks[record.name] = settings
        await self.sandboxes.leave(container, self.sandboxes.record_of(record.name, settings))
        failpoint("disconnect.unwired")
        container.networks.pop(record.name, None)
        self.store.save_best_effort(container)

    def _event(self, record: NetworkRecord, action: str) -> None:
        self.events.publish("network", action, record.id, {"name": record.name, "type": record.driver})


def _check(wanted: NetworkRecord) -> NetworkRecord:
    """Docker's own rules for a new network, in its order; returns it without subnets that have no effect."""
    _check_name(wanted.name)
    if wanted.driver == "overlay":
        raise PermissionDenied(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
            "swarm and try again.",
            hint="an overlay network needs one: use -d bridge",
        )
    ipam.check_pools(wanted.pools, ipv6=wanted.ipv6)
    if wanted.config_only:
        return msgspec.structs.replace(wanted, driver=r.NONE, pools=(), unused=wanted.pools)
    _check_drivers(wanted)
    if not wanted.ipv4 and not wanted.ipv6:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    _check_options(wanted)
    _check_subnets(wanted)
    _check_gateway_modes(wanted)
    if wanted.ipv6:
        return wanted
    used = tuple(p for p in wanted.pools if p.version == 4)
    return msgspec.structs.replace(wanted, pools=used, unused=tuple(p for p in wanted.pools if p.version == 6))


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidArgument("invalid name: name is empty")
    if name in (*PREDEFINED, "default"):
        raise PermissionDenied(f"operation is not permitted on predefined {name} network")


def _check_drivers(wanted: NetworkRecord) -> None:
    driver = wanted.driver
    if driver in (r.HOST, r.NONE):
        raise PermissionDenied(f'only one instance of "{driver}" network is allowed')
    if driver not in r.DRIVERS:
        raise NotFound(f'plugin "{driver}" not found', hint=f"use {', '.join(r.DRIVERS[:3])}")
    if wanted.ipam_driver not in ("", "default", "null"):
        raise NotFound(f'plugin "{wanted.ipam_driver}" not found: no such IPAM driver', hint="use default")


def _check_options(wanted: NetworkRecord) -> None:
    for option in (r.OPTION_ICC, r.OPTION_MASQUERADE, r.OPTION_INHIBIT, r.OPTION_DEFAULT):
        if booleans.parse(wanted.options.get(option, "true")) is None:
            _unreadable(wanted, option, 'strconv.ParseBool: parsing "{}": invalid syntax')
    _check_mtu(wanted)
    for option in (r.OPTION_BIND, r.OPTION_SNAT4, r.OPTION_SNAT6):
        if address_of(wanted.options.get(option, "::")) is None:
            _unreadable(wanted, option, "nil ip")


def _check_mtu(wanted: NetworkRecord) -> None:
    text = wanted.options.get(r.OPTION_MTU, "1500")
    try:
        number = integers.signed(text)
    except integers.NotAnIntegerError as e:
        _unreadable(wanted, r.OPTION_MTU, f'strconv.Atoi: parsing "{{}}": {e}')
    if number < 0:
        raise InvalidArgument(f"invalid MTU number: {text}")
    if number > 65535 or 0 < number < 68:
        raise UnclassifiedArgument("invalid argument", hint=f"the MTU of a bridge is 68 to 65535, not {text}")


def _unreadable(wanted: NetworkRecord, option: str, reason: str) -> NoReturn:
    text = wanted.options.get(option, "")
    raise InvalidArgument(f"failed to parse {option} value: {text} ({reason.format(text)})")


def _check_subnets(wanted: NetworkRecord) -> None:
    if wanted.driver not in (r.HOST, r.NONE) and wanted.ipam_driver == "null":
        raise InvalidArgument("ipv4 pool is empty", hint="leave out --ipam-driver")
    for version, enabled in ((4, wanted.ipv4), (6, wanted.ipv6)):
        subnets = [p.network for p in wanted.pools if p.version == version and enabled]
        if any(one.overlaps(other) for one, other in itertools.combinations(subnets, 2)):
            continue  # and are refused for that
        if wanted.driver == r.BRIDGE and enabled and len(subnets) > 1:
            raise PermissionDenied("bridge driver doesn't support multiple subnets")


def _check_gateway_modes(wanted: NetworkRecord) -> None:
    for version in (4, 6):
        option = r.OPTION_MODE4 if version == 4 else r.OPTION_MODE6
        mode = wanted.options.get(option, r.NAT)
        if mode not in r.MODES:
            _unreadable(wanted, option, "unknown gateway mode {}")
        if mode == r.ISOLATED and not wanted.internal:
            raise UnclassifiedArgument(
                f"gateway mode '{mode}' can only be used for an internal network", hint="add --internal"
            )


def settings_of(
    mode: NamespaceMode, networking: Mapping[str, EndpointSettings], manager: NetworkManager
) -> tuple[dict[str, EndpointSettings], dict[str, str]]:
    """The settings of a new container's networks by name, and its requested hardware addresses.

    A network that is not there is an error of the start, as with Docker; settings that it cannot have are one of the
    creation (InvalidArgument).
    """
    if mode.container is not None:
        return {}, {}
    first = mode.network
    chosen = networking or {first: EndpointSettings()}  # with settings for others it is on these alone
    if first in chosen:
        chosen = {first: chosen[first], **chosen}
    result: dict[str, EndpointSettings] = {}
    for ref, settings in chosen.items():
        record = _found(manager, ref)
        name = ref if record is None else record.name
        try:
            check_settings(name, record, settings)
        except InvalidArgument as e:
            raise InvalidArgument(f"invalid config for network {name}: {e.message}", hint=e.hint) from e
        if record is not None:
            settings.network_id = record.id
        result.setdefault(name, settings)
    return result, {name: settings.mac_address for name, settings in result.items() if settings.mac_address}


def _found(manager: NetworkManager, ref: str) -> NetworkRecord | None:
    """The network that a reference means now; None also where it is ambiguous, which is for the start to say."""
    try:
        return find(manager, ref)
    except (NotFound, InvalidArgument):
        return None
