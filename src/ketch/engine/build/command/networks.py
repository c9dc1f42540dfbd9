"""Networks of commands: the default one, users' own with their names, another container's, or nothing but loopback.

             found (before the start)          connected                      released (at the end)
a name ────► CommandNetwork ─────────────────► interface, names at 127.0.0.11 ─────────────► nothing
             its files in /etc, its namespace
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ketch.engine.containers import shared_namespaces
from ketch.engine.networks import dns_names, references
from ketch.engine.spec import bundle as container_bundle
from ketch.engine.spec import etc_files
from ketch.errors import InvalidArgument, NotFound
from ketch.network import files
from ketch.network.connections import EndpointRequest
from ketch.network.live import WIRED
from ketch.notation import namespace_modes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ketch.build.providers import BuildCommand
    from ketch.engine.aio.serial_thread import SerialThread
    from ketch.engine.model.namespaces.user import UserNamespace
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.monitors.monitor_client import Created
    from ketch.engine.networks.dns_names import DnsNames
    from ketch.engine.paths import ContainerPaths
    from ketch.engine.spec.etc_files import DnsDefaults
    from ketch.network.manager import NetworkManager
    from ketch.network.model.record import NetworkRecord

HOSTNAME = "buildkitsandbox"  # BuildKit's: programs may write it into files
_LABEL = "of a build"


class CommandNetwork(Struct, frozen=True, kw_only=True):
    """The network of a command: ``record``, or nothing; ``namespace`` is the path of another container's.

    That one's ``user_namespace``, by its path ``users``, is the command's as well: the network belongs to it.
    ``etc``: the texts of files in /etc that a command sees in the place of its root's own.
    """

    record: NetworkRecord | None = None
    namespace: str = ""
    user_namespace: UserNamespace | None = None
    users: str = ""
    hostname: str = HOSTNAME
    etc: Mapping[str, str] = {}


class CommandNetworks(Struct, frozen=True, kw_only=True, eq=False):
    """The networks that commands may have; ``manager`` is called on its own thread."""

    manager: NetworkManager
    thread: SerialThread
    names: DnsNames
    store: ContainerStore
    paths: ContainerPaths
    defaults: DnsDefaults
    host_gateway: Callable[[], Sequence[str]]

    def find(self, command: BuildCommand) -> CommandNetwork:
        """The network of a command (KetchError in the words of containers' starts)."""
        if (ref := namespace_modes.container_of(command.network)) is not None:
            return self._of_container(shared_namespaces.other(self.store, ref, "network"))
        record = self._record(command.network)
        hostname = command.hostname or HOSTNAME
        found = CommandNetwork(record=record, hostname=hostname)
        etc = {"hosts": self._hosts(command, hostname), "resolv.conf": self._resolv(command.network, record)}
        return msgspec.structs.replace(found, etc=etc)

    def _of_container(self, other: Container) -> CommandNetwork:
        """Another container's network, with its names: a command finds itself in the other's /etc/hosts."""
        texts = etc_files.read(self.paths.directory(other.id))
        return CommandNetwork(
            namespace=shared_namespaces.path(self.store, other.id, "network"),
            user_namespace=other.user_namespace,
            users=shared_namespaces.path(self.store, other.id, "user") if other.user_namespace is not None else "",
            hostname=container_bundle.hostname(other),
            etc={name: texts[name] for name in ("hosts", "resolv.conf")},
        )

    def _record(self, name: str) -> NetworkRecord | None:
        """The network that gives a command an interface; None: none does."""
        if name in ("host", "none"):
            return None
        if name == "default":
            return self.default_network()
        try:
            record = references.find(self.manager, name)
        except NotFound as e:
            e.message = f"failed to set up container networking: {e.message}"
            raise
        if record.driver not in WIRED:
            raise InvalidArgument(
                f"network {name} ({record.driver}) has no interfaces to give", hint="name another one"
            )
        return record

    def default_network(self) -> NetworkRecord | None:
        """The network of containers that ask for none; None: this daemon has no bridge."""
        return next((one for one in self.manager.list() if one.is_default and not one.retired), None)

    # -- files in /etc -----------------------------------------------------------------------------

    def _hosts(self, command: BuildCommand, hostname: str) -> str:
        """BuildKit's: a command is no host that others know, and its own name is that of its loopback interface."""
        lines = [f"127.0.0.1\tlocalhost {hostname}\n", "::1\tlocalhost ip6-localhost ip6-loopback\n"]
        for name, address in (files.parse_extra_host(f"{name}={address}") for name, address in command.hosts):
            if known := self._gateway() if address == "host-gateway" else address:
                lines.append(f"{known}\t{name}\n")
        return "".join(lines)

    def _resolv(self, network: str, record: NetworkRecord | None) -> str:
        if network == "host":
            return files.host_own_text()
        own_resolver = record is not None and not record.is_default
        dns = self.defaults
        return etc_files.resolv(dns.servers, dns.search, dns.options, own_resolver=own_resolver)

    def _gateway(self) -> str:
        """The address of the host as containers of the default network know it, one alone, as BuildKit's."""
        record = self.default_network()
        pool = record.pool(4) if record is not None else None
        return next(iter(self.host_gateway()), pool.gateway if pool is not None else "")

    # -- connecting --------------------------------------------------------------------------------

    async def connect(self, name: str, network: CommandNetwork, created: Created) -> None:
        """Connect a container that is about to run (NotFound: the network was removed; other KetchErrors)."""
        if created.netns_fd is not None and not network.namespace:
            await self.thread.run(self._connect, name, network.record, created)

    def _connect(self, name: str, record: NetworkRecord | None, created: Created) -> None:
        assert created.netns_fd is not None
        if record is None:
            self.manager.loopback_up(created.rtnl_fd, created.netns_fd)
            return
        if record not in self.manager.list():
            raise NotFound(f"network {record.name} not found", hint="it was removed or changed while the build ran")
        outside = not record.internal
        request = EndpointRequest(
            container_id=name,
            label=_LABEL,
            gateway4=outside and record.ipv4,
            gateway6=outside and record.ipv6,
            outside6=outside and record.ipv6,
        )
        endpoint = self.manager.connect(record.id, request, created.netns_fd, created.rtnl_fd)
        if not record.is_default:
            self.names.join(record, endpoint, [name])
            servers = dns_names.servers(self.defaults.servers, leads_outside=outside)
            self.names.serve(name, created.netns_fd, servers)

    async def release(self, name: str) -> None:
        """Take back what `connect` gave; nothing where there is nothing."""
        await self.thread.run(self._release, name)

    def _release(self, name: str) -> None:
        self.names.forget(name)
        for endpoint in self.manager.endpoints_of(name):
            self.names.leave(endpoint.network_id, name)
        self.manager.disconnect(name)
