"""Records of networks and of containers' endpoints on them, as rows hold them."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import msgspec

from ketch.notation import booleans

if TYPE_CHECKING:
    from ketch.linux.netlink.addresses import Address, Interface, Network

BRIDGE, MACVLAN, IPVLAN, HOST, NONE = "bridge", "macvlan", "ipvlan", "host", "null"
DRIVERS = (BRIDGE, MACVLAN, IPVLAN, HOST, NONE)
PREDEFINED = ("bridge", "host", "none")  # the names of the networks that are always there

# The options of a bridge network that mean something here; their names are Docker's.
_BRIDGE = "com.docker.network.bridge."
OPTION_NAME = _BRIDGE + "name"
OPTION_ICC = _BRIDGE + "enable_icc"
OPTION_MASQUERADE = _BRIDGE + "enable_ip_masquerade"
OPTION_BIND = _BRIDGE + "host_binding_ipv4"
OPTION_INHIBIT = _BRIDGE + "inhibit_ipv4"
OPTION_MODE4 = _BRIDGE + "gateway_mode_ipv4"
OPTION_MODE6 = _BRIDGE + "gateway_mode_ipv6"
OPTION_DEFAULT = _BRIDGE + "default_bridge"
OPTION_MTU = "com.docker.network.driver.mtu"
OPTION_IPV4 = "com.docker.network.enable_ipv4"
OPTION_IPV6 = "com.docker.network.enable_ipv6"
OPTION_PREFIX = "com.docker.network.container_iface_prefix"
OPTION_SNAT4 = "com.docker.network.host_ipv4"
OPTION_SNAT6 = "com.docker.network.host_ipv6"
# How the world meets a network (OPTION_MODE4, OPTION_MODE6).
NAT, UNPROTECTED, ROUTED, ISOLATED = "nat", "nat-unprotected", "routed", "isolated"
MODES = (NAT, UNPROTECTED, ROUTED, ISOLATED)
# Auxiliary addresses that mean something: the routers that containers use instead of the bridge.
AUX_GATEWAY4, AUX_GATEWAY6 = "DefaultGatewayIPv4", "DefaultGatewayIPv6"
ENDPOINT_IFNAME = "com.docker.network.endpoint.ifname"
ENDPOINT_SYSCTLS = "com.docker.network.endpoint.sysctls"


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """One subnet of a network: containers get addresses of ``ip_range`` (the whole subnet when empty).

    Texts in CIDR form; ``gateway`` is an address or empty; ``aux`` are addresses that belong to somebody else, by name.
    ``given`` says that a person chose the subnet: only there may a container ask for an address; ``gateway_given`` that
    a person, or nobody yet, chose the gateway.  ``kept``: it is there for those who have an address of it, and nobody
    else gets one (see `default_network`).
    """

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    aux: dict[str, str] = {}
    given: bool = True
    gateway_given: bool = True
    kept: bool = False

    @property
    def network(self) -> Network:
        """The subnet."""
        return ipaddress.ip_network(self.subnet)

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.subnet else 4

    @property
    def router(self) -> str:
        """The gateway of containers: another one than the bridge where an auxiliary address is named so."""
        return self.aux.get(AUX_GATEWAY4 if self.version == 4 else AUX_GATEWAY6) or self.gateway

    @property
    def gateway_interface(self) -> Interface | None:
        """The gateway's address with the subnet's length."""
        return ipaddress.ip_interface(f"{self.gateway}/{self.network.prefixlen}") if self.gateway else None


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One network; ``created`` in ns, ``link`` is the host's link behind it (a bridge, or a macvlan's parent).

    ``unused`` are subnets that are kept and shown, and have no effect: of a family that is not enabled, and those of a
    ``config_only`` network, which is nothing but settings for others; ``config_from`` names the one that these are of.
    ``retired``: a default network of former settings, which is there for those who are on it (see `default_network`).
    """

    id: str
    name: str
    driver: str
    created: int
    pools: tuple[Pool, ...] = ()
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    scope: str = "local"
    unused: tuple[Pool, ...] = ()
    config_only: bool = False
    config_from: str = ""
    link: str = ""
    mtu: int = 0
    retired: bool = False

    def pool(self, version: int) -> Pool | None:
        """The first subnet of a family (4 or 6)."""
        return next((p for p in self.pools if p.version == version), None)

    @property
    def speaks_ipv6(self) -> bool:
        """Whether an endpoint has, or can get, an IPv6 address."""
        return self.ipv6 or any(p.kept and p.version == 6 for p in self.pools)

    def flag(self, option: str, default: bool) -> bool:
        """A yes-or-no option; ``default`` without, ValueError for a value that is neither."""
        text = self.options.get(option, "")
        found = booleans.parse(text) if text else default
        if found is None:
            raise ValueError(f"`{text}` is neither true nor false")
        return found

    def mode(self, version: int) -> str:
        """The gateway mode of the network for a family: one of MODES."""
        return self.options.get(OPTION_MODE4 if version == 4 else OPTION_MODE6) or NAT

    @property
    def is_default(self) -> bool:
        """Whether this is the default network."""
        return self.flag(OPTION_DEFAULT, False)


class Binding(msgspec.Struct, frozen=True):
    """One published port: ``host_ip:host_port`` of the host leads to ``container_port``.

    ``host_port`` 0: the container's own address is reached from outside, and no port of the host is taken.
    ``relayed``: it is IPv6's, and the container has IPv4 alone.
    """

    proto: str
    container_port: int
    host_ip: str
    host_port: int
    relayed: bool = False

    @property
    def version(self) -> int:
        """The family, 4 or 6, of the network that it leads to."""
        return 6 if ":" in self.host_ip and not self.relayed else 4


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One container's connection to one network; addresses as text, empty where there is none.

    ``veth`` is the host's end (empty for drivers without one).  ``bindings`` are published through this endpoint: it is
    the one that leads outside (``gateway4``/``gateway6`` say for which family it holds the default route).
    ``masquerade``: whether its packets get the host's address, where the network's own setting has changed since.
    """

    container_id: str
    network_id: str
    endpoint_id: str
    ip: str = ""
    prefix_len: int = 0
    gateway: str = ""
    ip6: str = ""
    prefix_len6: int = 0
    gateway6: str = ""
    mac: str = ""
    veth: str = ""
    ifname: str = "eth0"
    bindings: tuple[Binding, ...] = ()
    gateway4_used: bool = False
    gateway6_used: bool = False
    masquerade: bool | None = None

    @property
    def ports(self) -> dict[str, list[dict[str, str]]]:
        """Published ports in Docker's form: ``{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}``."""
        result: dict[str, list[dict[str, str]]] = {}
        for b in self.bindings:
            shown = result.setdefault(f"{b.container_port}/{b.proto}", [])
            if b.host_port:
                shown.append({"HostIp": b.host_ip, "HostPort": str(b.host_port)})
        return result

    @property
    def interfaces(self) -> list[Interface]:
        """The addresses with their lengths."""
        found = ((self.ip, self.prefix_len), (self.ip6, self.prefix_len6))
        return [ipaddress.ip_interface(f"{ip}/{length}") for ip, length in found if ip]

    def gateway_of(self, version: int) -> Address | None:
        """The gateway's address for a family."""
        text = self.gateway if version == 4 else self.gateway6
        return ipaddress.ip_address(text) if text else None
