"""A network in Docker's JSON, and the bodies of requests about networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from ketch.api.wire import filters
from ketch.engine.model.records import EndpointFields, EndpointSettings
from ketch.errors import InvalidArgument, NotFound, PermissionDenied, UnclassifiedArgument
from ketch.network.model.record import OPTION_IPV4, OPTION_IPV6, PREDEFINED, NetworkRecord, Pool
from ketch.notation import booleans, times

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.engine import Engine
    from ketch.engine.model.records import Container
    from ketch.notation.api_objects import ApiObject

_KNOWN = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))


class IpamConfig(msgspec.Struct, kw_only=True):
    """One subnet of a request."""

    subnet: str = msgspec.field(default="", name="Subnet")
    ip_range: str | None = msgspec.field(default="", name="IPRange")
    gateway: str | None = msgspec.field(default="", name="Gateway")
    aux: dict[str, str] | None = msgspec.field(default=None, name="AuxiliaryAddresses")


class Ipam(msgspec.Struct, rename="pascal", kw_only=True):
    """The address management of a network."""

    driver: str | None = "default"
    config: list[IpamConfig] | None = None
    options: dict[str, str] | None = None


class ConfigFrom(msgspec.Struct, rename="pascal", kw_only=True):
    """The network whose configuration a new one takes."""

    network: str = ""


class NewNetwork(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of ``create``."""

    GO_NAME: ClassVar[str] = "CreateRequest"

    name: str = ""
    driver: str = "bridge"
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigFrom | None = None
    enable_ipv4: bool | None = msgspec.field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = msgspec.field(default=None, name="EnableIPv6")
    ipam: Ipam | None = msgspec.field(default=None, name="IPAM")
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None

    def record(self) -> NetworkRecord:
        """A network's record from a request; fields that the request leaves open are empty."""
        self._check_swarm()
        ipam = self.ipam or Ipam()
        pools = tuple(
            Pool(subnet=c.subnet, gateway=c.gateway or "", ip_range=c.ip_range or "", aux=c.aux or {})
            for c in ipam.config or ()
            if c.subnet or c.gateway or c.ip_range
        )
        return NetworkRecord(
            id="",
            name=self.name,
            driver=self.driver or "bridge",
            created=0,
            pools=pools,
            ipv4=self._enables(self.enable_ipv4, OPTION_IPV4, True),
            ipv6=self._enables(self.enable_ipv6, OPTION_IPV6, False),
            internal=self.internal,
            attachable=self.attachable,
            options=self.options or {},
            labels=self.labels or {},
            ipam_driver=ipam.driver or "default",
            ipam_options=ipam.options,
        )

    def _check_swarm(self) -> None:
        """Refuse networks of a swarm (PermissionDenied), and those that are only configurations."""
        if self.ingress:
            raise PermissionDenied("Ingress network can only be global scope network")
        if self.scope == "swarm":
            raise PermissionDenied(
                "cannot create a swarm scoped network when swarm is not active", hint="leave out --scope"
            )
        if self.config_only and (self.internal or self.attachable or self.scope):
            raise PermissionDenied(
                "configuration network can only contain network specific fields. Network operator fields like "
                "[ ingress | internal | attachable | scope ] are not supported."
            )
        if self.config_only:
            raise InvalidArgument(f"network {self.name}: configuration-only networks are not supported")
        if self.config_from is not None and self.config_from.network:
            raise NotFound(f'configuration network "{self.config_from.network}" does not exist')

    def _enables(self, asked: bool | None, option: str, default: bool) -> bool:
        """Whether a family is wanted: the field says so, else the driver's option of older clients."""
        text = (self.options or {}).get(option)
        if asked is not None or text is None:
            return default if asked is None else asked
        found = booleans.parse(text)
        if found is None:
            raise InvalidArgument(f'driver-opt "{option}" is not a valid bool', hint="use true or false")
        return found


def endpoint(asked: EndpointFields | None) -> EndpointSettings:
    """A requested endpoint; addresses in use and ids come from the engine alone."""
    asked = asked or EndpointFields()
    return EndpointSettings(
        ipam_config=asked.ipam_config,
        links=asked.links,
        mac_address=asked.mac_address,
        aliases=asked.aliases,
        driver_opts=asked.driver_opts,
        gw_priority=asked.gw_priority,
    )


class ConnectBody(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of ``connect``."""

    GO_NAME: ClassVar[str] = "ConnectOptions"

    container: str = ""
    endpoint_config: EndpointFields | None = None


class DisconnectBody(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of ``disconnect``."""

    GO_NAME: ClassVar[str] = "DisconnectOptions"

    container: str = ""
    force: bool = False


def wire(engine: Engine, record: NetworkRecord, *, detailed: bool) -> ApiObject:
    """A network; ``detailed`` adds the containers on it."""
    members = engine.networks.members(record) if detailed else {}
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": times.rfc3339_or_never(record.created),
        "Scope": "local",
        "Driver": record.driver,
        "EnableIPv4": record.ipv4,
        "EnableIPv6": record.ipv6,
        "IPAM": {
            "Driver": record.ipam_driver,
            "Options": record.ipam_options if record.ipam_options or record.name not in PREDEFINED else None,
            "Config": [_pool(pool) for pool in record.pools] or (None if record.name in PREDEFINED else []),
        },
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {cid: _member(c, c.networks[record.name]) for cid, c in sorted(members.items())},
        "Options": record.options,
        "Labels": record.labels,
    }


def _pool(pool: Pool) -> ApiObject:
    answer: ApiObject = {"Subnet": pool.subnet}
    if pool.ip_range:
        answer["IPRange"] = pool.ip_range
    if pool.gateway:
        answer["Gateway"] = pool.gateway
    if pool.aux:
        answer["AuxiliaryAddresses"] = pool.aux
    return answer


def _member(container: Container, settings: EndpointSettings) -> dict[str, str]:
    v4, v6 = settings.ip_address, settings.global_ipv6_address
    return {
        "Name": container.name,
        "EndpointID": settings.endpoint_id,
        "MacAddress": settings.mac_address,
        "IPv4Address": f"{v4}/{settings.ip_prefix_len}" if v4 else "",
        "IPv6Address": f"{v6}/{settings.global_ipv6_prefix_len}" if v6 else "",
    }


def predicate(engine: Engine, chosen: dict[str, list[str]]) -> Callable[[NetworkRecord], bool]:
    """The predicate of ``network ls --filter``."""
    filters.check(chosen, _KNOWN)
    for kind in chosen.get("type", ()):
        if kind not in ("custom", "builtin"):
            raise UnclassifiedArgument(f"invalid filter: 'type'='{kind}'", hint="use custom or builtin")
    try:
        dangling = filters.booleans_of(chosen, "dangling")
    except InvalidArgument as e:
        what = 'invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")'
        raise InvalidArgument(what) from e
    used = set() if dangling is None else {name for c in engine.containers.list() for name in c.networks}

    def keep(record: NetworkRecord) -> bool:
        builtin = record.name in PREDEFINED
        return (
            ("name" not in chosen or any(v in record.name for v in chosen["name"]))
            and ("id" not in chosen or any(record.id.startswith(v) for v in chosen["id"]))
            and ("driver" not in chosen or record.driver in chosen["driver"])
            and ("scope" not in chosen or "local" in chosen["scope"])
            and ("type" not in chosen or ("builtin" if builtin else "custom") in chosen["type"])
            and (dangling is None or (not builtin and record.name not in used) == dangling)
            and filters.has_labels(record.labels, chosen.get("label", []))
        )

    return keep
