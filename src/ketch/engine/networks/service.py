"""Network service: the operations of the API on networks.

What a network is on this host is the network package's business (``ketch.network.manager``); here are Docker's names,
its rules about which network may be made, and which container may join.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from typing import TYPE_CHECKING, NoReturn

import msgspec
from msgspec import Struct

from ketch.engine.model.namespace_mode import ModeKind, NamespaceMode
from ketch.engine.model.records import EndpointIpam, EndpointSettings
from ketch.engine.model.reports import check_removed
from ketch.engine.networks.references import find
from ketch.errors import InvalidArgument, KetchError, NotFound, PermissionDenied, UnclassifiedArgument
from ketch.failpoints import failpoint
from ketch.network.links import interface_sysctls
from ketch.network.model import ipam
from ketch.network.model import record as r
from ketch.network.model.record import PREDEFINED, NetworkRecord, Pool
from ketch.notation import integers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ketch.engine.aio.serial_thread import SerialThread
    from ketch.engine.events.bus import EventBus
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.model.records import Container, EndpointFields
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.networks.sandbox import Sandboxes
    from ketch.network.manager import NetworkManager

Records = list[NetworkRecord]
Strings = list[str]
_DRIVER_OF = {"host": r.HOST, "none": r.NONE}
_NOT_THEIRS = "user specified IP address is supported only when connecting to networks with user configured subnets"


class NetworkService(Struct, frozen=True, eq=False):
    """All networks of the engine; ``manager`` is called on its own thread."""

    manager: NetworkManager
    thread: SerialThread
    store: ContainerStore
    live: LiveContainers
    events: EventBus
    sandboxes: Sandboxes

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
        _check(wanted)
        ipam.check_pools(wanted.pools, ipv6=wanted.ipv6)
        if not wanted.ipv6:
            wanted = _without_ipv6(wanted)
        record = await self.thread.run(self.manager.create, wanted)
        self._event(record, "create")
        return record

    async def remove(self, ref: str) -> None:
        """Remove a network that no running container is on (PermissionDenied otherwise)."""
        record = self.get(ref)
        if record.name in PREDEFINED:
            raise PermissionDenied(f"{record.name} is a pre-defined network and cannot be removed")
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
            if record.name in PREDEFINED or record.name in used or keep(record):
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
        """Connect a container to a network; a running one gets its interface at once."""
        container = self.store.get(container_ref)
        record = self.get(ref)
        async with self.live.of(container.id).lock:
            _check_join(container, record)
            check_settings(record, settings)
            if record.name in container.networks:
                if container.state.running:
                    raise PermissionDenied(
                        f"endpoint with name {container.name} already exists in network {record.name}"
                    )
                del container.networks[record.name]
            settings.network_id = record.id
            if list(container.networks) == ["none"]:
                raise InvalidArgument(
                    "container cannot be connected to multiple networks with one of the networks in private (none) mode"
                )
            container.networks[record.name] = settings
            if container.state.running:
                try:
                    await self.sandboxes.join(container, record)
                except BaseException:
                    container.networks.pop(record.name, None)
                    raise
            failpoint("connect.wired")
            self.store.save(container)

    async def disconnect(self, ref: str, container_ref: str, *, force: bool = False) -> None:
        """Disconnect a container from a network."""
        if force and container_ref and not self.store.has(container_ref):
            await self.thread.run(self.manager.disconnect, container_ref, self.get(ref).id)
            return
        container = self.store.get(container_ref)
        record = self.get(ref)
        async with self.live.of(container.id).lock:
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
            if container.state.running:
                container.networks[record.name] = settings
                await self.sandboxes.leave(container, self.sandboxes.record_of(record.name, settings))
                failpoint("disconnect.unwired")
                container.networks.pop(record.name, None)
                self.store.save_best_effort(container)

    def _event(self, record: NetworkRecord, action: str) -> None:
        self.events.publish("network", action, record.id, {"name": record.name, "type": record.driver})


def _check(wanted: NetworkRecord) -> None:
    """Docker's own rules for a new network, in its order."""
    _check_name(wanted.name)
    _check_drivers(wanted)
    if not wanted.ipv4 and not wanted.ipv6:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    _check_options(wanted)
    _check_subnets(wanted)
    _check_gateway_modes(wanted)


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidArgument("invalid name: name is empty")
    if name in (*PREDEFINED, "default"):
        raise PermissionDenied(f"operation is not permitted on predefined {name} network")


def _check_drivers(wanted: NetworkRecord) -> None:
    driver = wanted.driver
    if driver in (r.HOST, r.NONE):
        raise PermissionDenied(f'only one instance of "{driver}" network is allowed')
    if driver == "overlay":
        raise PermissionDenied(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
            "swarm and try again.",
            hint="an overlay network needs one: use -d bridge",
        )
    if driver not in r.DRIVERS:
        raise NotFound(f'plugin "{driver}" not found', hint=f"use {', '.join(r.DRIVERS[:3])}")
    if wanted.ipam_driver not in ("", "default", "null"):
        raise NotFound(f'plugin "{wanted.ipam_driver}" not found: no such IPAM driver', hint="use default")


def _check_options(wanted: NetworkRecord) -> None:
    for option in (r.OPTION_ICC, r.OPTION_MASQUERADE, r.OPTION_INHIBIT, r.OPTION_DEFAULT):
        try:
            wanted.flag(option, True)
        except ValueError:
            _unreadable(wanted, option, 'strconv.ParseBool: parsing "{}": invalid syntax')
    mtu = wanted.options.get(r.OPTION_MTU, "1500")
    try:
        number = integers.signed(mtu)
    except integers.NotAnIntegerError as e:
        _unreadable(wanted, r.OPTION_MTU, f'strconv.Atoi: parsing "{{}}": {e}')
    if not 0 <= number <= 65535 or 0 < number < 68:
        raise InvalidArgument(f"invalid MTU number: {mtu}")
    address = wanted.options.get(r.OPTION_BIND, "")
    if address and not ipam.contains(ipaddress.ip_network("0.0.0.0/0"), address):
        _unreadable(wanted, r.OPTION_BIND, "nil ip")


def _unreadable(wanted: NetworkRecord, option: str, reason: str) -> NoReturn:
    text = wanted.options.get(option, "")
    raise InvalidArgument(f"failed to parse {option} value: {text} ({reason.format(text)})")


def _check_subnets(wanted: NetworkRecord) -> None:
    if wanted.driver == r.BRIDGE and wanted.ipam_driver == "null":
        raise InvalidArgument("ipv4 pool is empty", hint="leave out --ipam-driver")
    for version, enabled in ((4, wanted.ipv4), (6, wanted.ipv6)):
        subnets = [p.subnet for p in wanted.pools if p.version == version]
        if len(subnets) > len(set(subnets)):
            continue  # they overlap, and are refused for that
        if wanted.driver == r.BRIDGE and enabled and len(subnets) > 1:
            raise PermissionDenied("bridge driver doesn't support multiple subnets")


def _check_gateway_modes(wanted: NetworkRecord) -> None:
    for version in (4, 6):
        mode = wanted.mode(version)
        if mode not in r.MODES:
            _unreadable(wanted, r.OPTION_MODE4 if version == 4 else r.OPTION_MODE6, "unknown gateway mode {}")
        if mode == r.ISOLATED and not wanted.internal:
            raise InvalidArgument(
                f"gateway mode {mode} can only be used for an internal network", hint="add --internal"
            )


def _without_ipv6(wanted: NetworkRecord) -> NetworkRecord:
    return msgspec.structs.replace(wanted, pools=tuple(p for p in wanted.pools if p.version == 4))


def _check_join(container: Container, record: NetworkRecord) -> None:
    if container.host.network.is_another:
        raise InvalidArgument(
            "container sharing network namespace with another container or host cannot be connected to any other "
            "network"
        )
    if record.name == "host":
        raise InvalidArgument(
            "cannot connect container to host network - container must be created in host network mode"
        )
    if record.name == "none" and container.networks:
        raise InvalidArgument(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
    if container.state.going:
        raise InvalidArgument(f"container {container.id} is marked for removal and cannot be connected to a network")


def check_settings(record: NetworkRecord, settings: EndpointFields) -> None:
    """Check a container's settings for a network (InvalidArgument)."""
    wrong: list[str] = []
    try:
        interface_sysctls.parse((settings.driver_opts or {}).get(r.ENDPOINT_SYSCTLS, ""))
    except InvalidArgument as e:
        wrong.append(e.message)
    config = settings.ipam_config or EndpointIpam()
    given = [(version, text) for version, text in ((4, config.ipv4 or ""), (6, config.ipv6 or "")) if text]
    if given and record.name in PREDEFINED:
        wrong.append("user specified IP address is supported on user defined networks only")
    for version, text in given:
        if not ipam.contains(ipaddress.ip_network("0.0.0.0/0" if version == 4 else "::/0"), text):
            wrong.append(f"invalid IPv{version} address: {text}")
    if record.name in PREDEFINED:
        if given:
            wrong.append(_NOT_THEIRS)
        if settings.aliases and record.name == "bridge":
            wrong.append("network-scoped alias is supported only for containers in user defined networks")
    else:
        wrong += [problem for version, text in given for problem in _wrong_address(record, version, text)]
    for text in config.link_local or ():
        if not any(ipam.contains(ipaddress.ip_network(every), text) for every in ("0.0.0.0/0", "::/0")):
            wrong.append(f"invalid link-local IP address: {text}")
    if wrong:
        problems = "\n".join(wrong if len(wrong) == 1 else [f"* {problem}" for problem in wrong])
        raise InvalidArgument(f"invalid endpoint settings:\n{problems}")
    if settings.mac_address:
        ipam.parse_mac(settings.mac_address)


def _wrong_address(record: NetworkRecord, version: int, text: str) -> Strings:
    given: list[Pool] = [p for p in record.pools if p.version == version and p.given]
    if not given:
        return [_NOT_THEIRS]
    for pool in given:
        with contextlib.suppress(InvalidArgument):
            ipam.parse_address(text, pool.network)
            return []
    return [f"no configured subnet or ip-range contain the IP address {text}"]


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
    chosen = {NamespaceMode.of_network(name).network: settings for name, settings in networking.items()}
    if first in chosen:
        chosen = {first: chosen[first], **chosen}
    elif mode.kind is not ModeKind.NETWORK or not chosen:  # with settings for others it is on these alone
        chosen = {first: EndpointSettings(), **chosen}
    result: dict[str, EndpointSettings] = {}
    for ref, settings in chosen.items():
        name = ref
        try:
            record = find(manager, ref)
        except NotFound:
            pass
        else:
            _check_at_creation(record, settings)
            name, settings.network_id = record.name, record.id
        result.setdefault(name, settings)
    macs = {name: settings.mac_address for name, settings in result.items() if settings.mac_address}
    for name, address in macs.items():
        try:
            ipam.parse_mac(address)
        except InvalidArgument as e:
            raise InvalidArgument(f"invalid config for network {name}: {e.message}", hint=e.hint) from e
    return result, macs


def _check_at_creation(record: NetworkRecord, settings: EndpointSettings) -> None:
    try:
        check_settings(record, settings)
    except InvalidArgument as e:
        raise InvalidArgument(f"invalid config for network {record.name}: {e.message}", hint=e.hint) from e
