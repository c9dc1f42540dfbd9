"""DNS names in user-defined networks: the containers that the resolver knows, and its upstream servers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ketch.network import files
from ketch.network.dns.directory import Directory
from ketch.network.dns.server import Resolver
from ketch.network.dns.sockets import DnsSockets, open_sockets
from ketch.network.dns.upstream import NameServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.engine.model.records import Container, EndpointSettings
    from ketch.engine.spec.etc_files import DnsDefaults
    from ketch.network.model.record import Endpoint, NetworkRecord
    from ketch.network.ports.outside import Outside

log = logging.getLogger(__name__)
Names = list[str]


def dns_names(container: Container, settings: EndpointSettings) -> Names:
    """Every name of a container on a network, its own name first."""
    names = [container.name, *(settings.aliases or ()), container.id[:12]]
    if container.config.hostname:
        names.append(container.config.hostname)
    return list(dict.fromkeys(names))


def servers(chosen: Sequence[str], *, leads_outside: bool) -> list[NameServer]:
    """The upstream servers: those that were chosen, else the host's.

    The host's servers are asked from the host; a container whose networks are all internal has no way outside, and
    asking on its behalf would be one.
    """
    if chosen:
        return [NameServer(address, inside=True) for address in chosen]
    if not leads_outside:
        return []
    return [NameServer(address, inside=False) for address in files.parse_resolv(files.host_own_text())[0]]


class DnsNames:
    """The directory of names and the resolver over it; the thread starts with the first container that needs it.

    Blocking calls, for the network's thread.
    """

    def __init__(self, defaults: DnsDefaults, outside: Outside | None = None) -> None:
        self._defaults, self._outside = defaults, outside
        self._directory = Directory()
        self._resolver: Resolver | None = None
        self._served: set[str] = set()

    def join(
        self, record: NetworkRecord, endpoint: Endpoint, names: Sequence[str], links: Mapping[str, str] | None = None
    ) -> None:
        """Add a container's names on a network; ``links`` are names that only it uses there (alias → name)."""
        addresses = [a for a in (endpoint.ip, endpoint.ip6) if a]
        self._directory.join(record.id, record.name, endpoint.container_id, names, addresses)
        self._directory.links(record.id, endpoint.container_id, links or {})

    def leave(self, network_id: str, container_id: str) -> None:
        """Remove a container's names on a network."""
        self._directory.leave(network_id, container_id)

    def serve(
        self, container_id: str, netns_fd: int, servers: Sequence[NameServer], *, kept: Sequence[int] = ()
    ) -> Sequence[int]:
        """Serve DNS in a namespace; returns the sockets' descriptors, for the monitor to keep during our restart.

        ``kept`` are those of an earlier daemon; otherwise they are opened.
        """
        if container_id in self._served and self._resolver is not None:
            self._resolver.update(container_id, servers)
            return ()
        if self._resolver is None:
            self._resolver = Resolver(self._directory, self._outside)
            self._resolver.start()
        sockets = DnsSockets.from_fds(*kept) if kept else open_sockets(netns_fd)
        fds: Sequence[int] = sockets.fds()
        self._resolver.serve(container_id, sockets, servers=servers, netns_fd=netns_fd)
        self._served.add(container_id)
        return fds

    def servers(self, container: Container, *, leads_outside: bool) -> list[NameServer]:
        """The upstream servers: the container's, else the daemon's, else the host's."""
        defaults = self._defaults.servers if container.name_servers is None else container.name_servers
        return servers(container.host.dns or defaults, leads_outside=leads_outside)

    def begin(self, container: Container) -> None:
        """Fix, at a container's start, the daemon's servers for it until it ends."""
        container.name_servers = list(self._defaults.servers)

    def serves(self, container_id: str) -> bool:
        """Whether DNS is served in a container's namespace."""
        return container_id in self._served

    def forget(self, container_id: str) -> None:
        """Close a container's sockets."""
        if container_id in self._served and self._resolver is not None:
            self._served.discard(container_id)
            self._resolver.forget(container_id)

    def close(self) -> None:
        """Stop serving."""
        if self._resolver is not None:
            self._resolver.close()
            self._resolver = None
            self._served.clear()
