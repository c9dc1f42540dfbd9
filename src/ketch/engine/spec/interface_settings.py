"""Sysctls of a container: its network's defaults, ``--sysctl``, and those of interfaces from endpoints' options."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from ketch.engine.model.namespaces.mode import ModeKind
from ketch.errors import InvalidArgument
from ketch.network.links import interface_sysctls
from ketch.network.model.record import ENDPOINT_SYSCTLS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.engine.model.namespaces.user import UserNamespace
    from ketch.engine.model.records import Container, EndpointSettings, HostConfig
    from ketch.network.links.interface_sysctls import Setting
    from ketch.network.model.record import Endpoint


def others(host: HostConfig, within: UserNamespace | None = None) -> dict[str, str]:
    """The sysctls of no interface, which the container's first process sets, ``within`` a user namespace perhaps."""
    sysctls = host.sysctls or {}
    if host.network.is_another:
        return sysctls
    sysctls = {**(_defaults_within(within) if within else _defaults()), **sysctls}
    if host.network.kind is not ModeKind.NETWORK:
        return sysctls
    of_interfaces = interface_sysctls.named(sysctls)
    return {name: value for name, value in sysctls.items() if name not in of_interfaces}


@functools.cache
def _defaults() -> dict[str, str]:
    """Docker's for a network namespace of the container's own: any user may listen on any port, and ping.

    Of groups only those can be named that this process's user namespace has.
    """
    with open("/proc/self/gid_map", encoding="ascii") as f:
        last = min(last_group(f.read()), 2147483647)
    defaults = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": f"0 {last}"}
    return {name: value for name, value in defaults.items() if os.path.exists("/proc/sys/" + name.replace(".", "/"))}


def last_group(gid_map: str) -> int:
    """The last of the groups that follow each other from 0 on in a user namespace (user_namespaces(7))."""
    end = 0
    for first, _, count in sorted(tuple(map(int, line.split())) for line in gid_map.splitlines()):
        if first == end:
            end += count
    return end - 1


def _defaults_within(namespace: UserNamespace) -> dict[str, str]:
    """The defaults in a user namespace, whose groups alone can be named there."""
    ping = {"net.ipv4.ping_group_range": f"0 {sum(part.size for part in namespace.gids) - 1}"}
    return {name: ping.get(name, value) for name, value in _defaults().items()}


def wanted(container: Container, settings: EndpointSettings) -> list[Setting]:
    """The sysctls of one endpoint's interface (``--sysctl`` names the interface)."""
    own = interface_sysctls.parse((settings.driver_opts or {}).get(ENDPOINT_SYSCTLS, ""))
    return [*interface_sysctls.named(container.host.sysctls or {}).values(), *own]


def check_all_used(container: Container, endpoints: Iterable[Endpoint]) -> None:
    """Raise InvalidArgument for a sysctl of an interface that the container does not have."""
    present = {e.ifname for e in endpoints}
    for name, setting in interface_sysctls.named(container.host.sysctls or {}).items():
        if setting.ifname not in present:
            raise InvalidArgument(f"set sysctl `{name}`: the container has no interface {setting.ifname}")
