"""Ports that a container asks to have published, and whether its networks can carry them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import structs

from ketch.errors import InvalidArgument
from ketch.network.model import record as r
from ketch.network.ports import requests as ports

if TYPE_CHECKING:
    from ketch.engine.model.records import Container
    from ketch.network.model.record import NetworkRecord
    from ketch.network.ports.requests import PortRequest


def _wanted(container: Container) -> list[PortRequest]:
    host = container.host
    return ports.requests(
        host.port_bindings and {k: v or [] for k, v in msgspec.to_builtins(host.port_bindings).items()},
        container.config.exposed_ports,
        host.publish_all_ports,
    )


def check_families(container: Container, gateway4: str, gateway6: str) -> None:
    """Raise for a port at an IPv4 address of the host when none of the container's networks has that family."""
    for request in _wanted(container):
        if "." in request.host_ip and gateway6 and not gateway4:
            raise InvalidArgument(
                f"publish port {request.key} of container {container.name} on {request.host_ip}: none of its networks "
                "leads outside with IPv4",
                hint="use an IPv6 address of the host",
            )


def requests(container: Container, record: NetworkRecord) -> list[PortRequest]:
    """The port requests of a container for which this network is the gateway."""
    wanted = _wanted(container)
    address = record.options.get(r.OPTION_BIND, "")
    if address in ("", "0.0.0.0"):
        return wanted
    return [structs.replace(q, host_ip=address) if not q.host_ip else q for q in wanted]
