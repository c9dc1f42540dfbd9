"""A network in Docker's JSON, and the bodies of requests about networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from ketch import expressions
from ketch.api.wire import filters
from ketch.engine.model.records import EndpointFields, EndpointSettings
from ketch.errors import InvalidArgument, PermissionDenied, UnclassifiedArgument
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

    GO_TYPE: ClassVar[str] = "network.IPAMConfig"

    subnet: str = msgspec.field(default="", name="Subnet")
    ip_range: str | None = msgspec.field(default="", name="IPRange")
    gateway: str | None = msgspec.field(default="", name="Gateway")
    aux: dict[str, str] | None = msgspec.field(default=None, name="AuxiliaryAddresses")


class Ipam(msgspec.Struct, rename="pascal", kw_only=True):
    """The address management of a network."""

    GO_TYPE: ClassVar[str] = "network.IPAM"

    driver: str | None = "default"
    config: list[IpamConfig] | None = None
    options: dict[str, str] | None = None


class ConfigFrom(msgspec.Struct, rename="pascal", kw_only=True):
    """The network whose configuration a new one takes."""

    GO_TYPE: ClassVar[str] = "network.ConfigReference"

    network: str = ""


class NewNetwork(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of ``create``."""

    GO_NAME: ClassVar[str] = "CreateRequest"
    GO_TYPE: ClassVar[str] = "network.CreateRequest"

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
        source = self.config_from.network if self.config_from is not None else ""
        if source:
            self._check_source(ipam)
        pools = tuple(
            Pool(subnet=c.subnet, gateway=c.gateway or "", ip_range=c.ip_range or "", aux=c.aux or {})
            for c in ipam.config or ()
        )
        return NetworkRecord(
            id="",
            name=self.name,
            driver=self.driver or "bridge",
            scope=self.scope or "local",
            config_only=self.config_only,
            config_from=source,
            created=0,
            pools=pools,
            ipv4=self._enables(self.enable_ipv4, OPTION_IPV4, True),
            ipv6=self._enables(self.enable_ipv6, OPTION_IPV6, False),
            internal=self.internal,
            attachable=self.attachable,
            options=self._options(),
            labels=self.labels or {},
            ipam_driver=ipam.driver or "default",
            ipam_options=ipam.options,
        )

    def _check_swarm(self) -> None:
        """Refuse networks of a swarm, and configurations that are more than that (PermissionDenied)."""
        if self.config_only and (self.ingress or self.internal or self.attachable or self.scope):
            raise PermissionDenied(
                "configuration network can only contain network specific fields. Network operator fields like "
                "[ ingress | internal | attachable | scope ] are not supported."
            )
        if self.ingress:
            raise PermissionDenied("Ingress network can only be global scope network")
        if self.scope == "swarm":
            raise PermissionDenied(
                "cannot create a swarm scoped network when swarm is not active", hint="leave out --scope"
            )

    def _check_source(self, ipam: Ipam) -> None:
        """Refuse what a network has of its configuration, and must not have of its own (PermissionDenied)."""
        if self.config_only:
            raise PermissionDenied("a configuration network cannot depend on another configuration network")
        own_ipam = ipam.driver not in (None, "", "default") or ipam.config or ipam.options
        if own_ipam or self.enable_ipv6 or self.labels:
            raise PermissionDenied(
                "user specified configurations are not supported if the network depends on a configuration network"
            )
        if self.options:
            raise PermissionDenied(
                "network driver options are not supported if the network depends on a configuration network"
            )

    def _options(self) -> dict[str, str]:
        """The driver's options, without those that a field of the request stands for."""
        fields = {OPTION_IPV4: self.enable_ipv4, OPTION_IPV6: self.enable_ipv6}
        return {name: value for name, value in (self.options or {}).items() if fields.get(name) is None}

    def _enables(self, asked: bool | None, option: str, default: bool) -> bool:
        """Whether a family is wanted: the field says so, else the driver's option of older clients."""
        text = (self.options or {}).get(option)
        if asked is not None or text is None:
            return default if asked is None else asked
        found = booleans.parse(text)
        if found is None:
            raise InvalidArgument(f'driver-opt "{option}" is not a valid bool', hint="use true or false")
        return found


class EndpointBody(EndpointFields):
    """A requested endpoint; of fields that the engine gives only the types are looked at."""

    GO_TYPE: ClassVar[str] = "network.EndpointSettings"

    network_id: str = msgspec.field(default="", name="NetworkID")
    endpoint_id: str = msgspec.field(default="", name="EndpointID")
    gateway: str = ""
    ip_address: str = msgspec.field(default="", name="IPAddress")
    ip_prefix_len: int = msgspec.field(default=0, name="IPPrefixLen")
    ipv6_gateway: str = msgspec.field(default="", name="IPv6Gateway")
    global_ipv6_address: str = msgspec.field(default="", name="GlobalIPv6Address")
    global_ipv6_prefix_len: int = msgspec.field(default=0, name="GlobalIPv6PrefixLen")
    dns_names: list[str] | None = msgspec.field(default=None, name="DNSNames")


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
    GO_TYPE: ClassVar[str] = "network.ConnectOptions"

    container: str = ""
    endpoint_config: EndpointBody | None = None


class DisconnectBody(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of ``disconnect``."""

    GO_NAME: ClassVar[str] = "DisconnectOptions"
    GO_TYPE: ClassVar[str] = "network.DisconnectOptions"

    container: str = ""
    force: bool = False


def wire(engine: Engine, record: NetworkRecord, *, detailed: bool) -> ApiObject:
    """A network; ``detailed`` adds the containers on it."""
    members = engine.networks.members(record) if detailed else {}
    bare = record.name in PREDEFINED or record.config_only
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": times.rfc3339_or_never(record.created),
        "Scope": record.scope,
        "Driver": record.driver,
        "EnableIPv4": record.ipv4,
        "EnableIPv6": record.ipv6,
        "IPAM": {
            "Driver": record.ipam_driver,
            "Options": record.ipam_options if record.ipam_options or record.name not in PREDEFINED else None,
            "Config": [_pool(pool) for pool in _shown(record)] or (None if bare else []),
        },
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": record.config_from},
        "ConfigOnly": record.config_only,
        "Containers": {cid: _member(c, c.networks[record.name]) for cid, c in sorted(members.items())},
        "Options": record.options,
        "Labels": record.labels,
    }


def _shown(record: NetworkRecord) -> list[Pool]:
    """The subnets in Docker's order: those asked for before the chosen ones, IPv4 before IPv6."""
    return sorted((*record.pools, *record.unused), key=lambda pool: (not pool.given, pool.version))


def _pool(pool: Pool) -> ApiObject:
    """A subnet as Docker shows it: what a person has chosen, or all of one that nobody has."""
    answer: ApiObject = {"Subnet": pool.subnet}
    if pool.ip_range:
        answer["IPRange"] = pool.ip_range
    if pool.gateway and (pool.gateway_given or not pool.given):
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


def _patterns(name: str, chosen: dict[str, list[str]]) -> expressions.Expressions:
    return expressions.Expressions(filter(expressions.is_valid, chosen.get(name, ())))


def predicate(engine: Engine, chosen: dict[str, list[str]]) -> Callable[[NetworkRecord], bool]:
    """The predicate of ``network ls --filter``."""
    filters.check(chosen, _KNOWN)
    for kind in chosen.get("type", ()):
        if kind not in ("custom", "builtin"):
            raise UnclassifiedArgument(f"invalid filter: 'type'='{kind}'", hint="use custom or builtin")
    if len(chosen.get("dangling", ())) > 1:
        raise InvalidArgument('got more than one value for filter key "dangling"')
    try:
        dangling = filters.booleans_of(chosen, "dangling") if chosen.get("dangling") else None
    except InvalidArgument as e:
        what = 'invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")'
        raise InvalidArgument(what) from e
    names, ids = _patterns("name", chosen), _patterns("id", chosen)
    used = set() if dangling is None else {name for c in engine.containers.list() for name in c.networks}

    def keep(record: NetworkRecord) -> bool:
        builtin = record.name in PREDEFINED
        return (
            (not chosen.get("name") or names.fit(record.name))
            and (not chosen.get("id") or ids.fit(record.id))
            and (not chosen.get("driver") or record.driver in chosen["driver"])
            and (not chosen.get("scope") or record.scope in chosen["scope"])
            and ("type" not in chosen or ("builtin" if builtin else "custom") in chosen["type"])
            and (dangling is None or (not builtin and record.name not in used) == dangling)
            and filters.has_labels(record.labels, chosen.get("label", []))
        )

    return keep
