"""Looking at the networks that always exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ketch.api import query
from ketch.api.wire.times import rfc3339

if TYPE_CHECKING:
    from aiohttp import web

    from ketch.api.server import Call
    from ketch.engine.networks import Network


def wire(call: Call, network: Network, *, detailed: bool) -> dict[str, Any]:
    """A network in Docker's JSON; ``detailed`` adds the containers on it."""
    members: dict[str, Any] = {}
    if detailed:
        for container in call.engine.containers.list():
            settings = container.networks.get(network.name)
            if settings is not None and container.state.running:
                address = f"{settings.ip_address}/{settings.ip_prefix_len}" if settings.ip_address else ""
                members[container.id] = {
                    "Name": container.name, "EndpointID": settings.endpoint_id, "MacAddress": settings.mac_address,
                    "IPv4Address": address, "IPv6Address": "",
                }  # fmt: skip
    options = {}
    if network.driver == "bridge":
        options = {
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.name": network.bridge,
            "com.docker.network.driver.mtu": str(network.mtu),
        }
    config = [{"Subnet": network.subnet, "Gateway": network.gateway}] if network.subnet else None
    return {
        "Name": network.name, "Id": network.id, "Created": rfc3339(network.created), "Scope": "local",
        "Driver": network.driver, "EnableIPv4": True, "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": config}, "Internal": False, "Attachable": False,
        "Ingress": False, "ConfigFrom": {"Network": ""}, "ConfigOnly": False, "Containers": members,
        "Options": options, "Labels": {},
    }  # fmt: skip


async def list_(call: Call) -> web.StreamResponse:
    """All networks that match."""
    chosen = query.filters(call.query)
    rows = [
        wire(call, n, detailed=False)
        for n in call.engine.networks.list()
        if ("name" not in chosen or any(v in n.name for v in chosen["name"]))
        and ("id" not in chosen or any(n.id.startswith(v) for v in chosen["id"]))
        and ("driver" not in chosen or n.driver in chosen["driver"])
        and "label" not in chosen
    ]
    return call.json(rows)


async def inspect(call: Call) -> web.StreamResponse:
    """One network and the containers on it."""
    return call.json(wire(call, call.engine.networks.get(call.path["id"]), detailed=True))


async def prune(call: Call) -> web.StreamResponse:
    """The built-in networks stay, and there are no others."""
    return call.json({"NetworksDeleted": None})


ROUTES = (
    ("GET", "/networks", list_),
    ("POST", "/networks/prune", prune),
    ("GET", "/networks/{id}", inspect),
)
