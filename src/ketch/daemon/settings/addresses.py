"""Checks of the network settings: addresses, subnets, options of networks."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from ketch.errors import InvalidArgument
from ketch.notation import digits

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.daemon.settings.config import Config

_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,253}[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL}){{0,127}}\.?")
_LETTER = re.compile("[a-zA-Z]")
_LEAST_MTU, _MAX_MTU = 68, 65535  # what a bridge takes (RFC 791; the kernel's ETH_MIN_MTU and ETH_MAX_MTU)


def options_of_flags(texts: list[str]) -> dict[str, dict[str, str]]:
    """``DRIVER=OPTION=VALUE`` → the options by driver (InvalidArgument)."""
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        driver, first, rest = text.partition("=")
        option, second, value = rest.partition("=")
        if not (driver and first and option and second):
            raise InvalidArgument(f"invalid --default-network-opt `{text}`", hint="write DRIVER=OPTION=VALUE")
        found.setdefault(driver, {})[option] = value
    return found


def settle(config: Config) -> None:
    """Give subnets that are named by any of their addresses their first one; what is none stays."""
    config.fixed_cidr, config.fixed_cidr_v6 = _subnet(config.fixed_cidr), _subnet(config.fixed_cidr_v6)
    for pool in config.default_address_pools:
        if isinstance(pool.get("base"), str):
            pool["base"] = _subnet(pool["base"])


def _subnet(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False)) if text else text
    except ValueError:
        return text


def check(config: Config) -> None:
    """Raise InvalidArgument for a setting that is no address, or none of the subnet that it should be in."""
    if config.mtu and not _LEAST_MTU <= config.mtu <= _MAX_MTU:
        raise InvalidArgument(f"--mtu {config.mtu}: not between {_LEAST_MTU} and {_MAX_MTU}")
    parsers: dict[str, Callable[[str], Any]] = {
        "bip": ipaddress.IPv4Interface,
        "bip6": ipaddress.IPv6Interface,
        "ip": ipaddress.ip_address,
        "fixed_cidr": ipaddress.IPv4Network,
        "fixed_cidr_v6": ipaddress.IPv6Network,
        "default_gateway": ipaddress.IPv4Address,
        "default_gateway_v6": ipaddress.IPv6Address,
    }
    for name, parse in parsers.items():
        if value := getattr(config, name):
            _parsed(parse, value, f"--{name.replace('_', '-')}")
    for address in config.dns:
        _parsed(ipaddress.ip_address, address, "--dns")
    for domain in config.dns_search:
        if domain != "." and not (_DOMAIN.fullmatch(domain) and _LETTER.search(domain)):
            raise InvalidArgument(
                f"--dns-search {domain}: not a valid domain", hint="such as example.com, or . for none"
            )
    _check_router("--default-gateway", config.default_gateway, config.bip, config.fixed_cidr)
    _check_router("--default-gateway-v6", config.default_gateway_v6, config.bip6, config.fixed_cidr_v6)
    _check_range("--bip", config.bip, "--fixed-cidr", config.fixed_cidr)
    _check_range("--bip6", config.bip6, "--fixed-cidr-v6", config.fixed_cidr_v6)
    _check_host_gateways(config.host_gateway_ips)
    _check_pools(config)
    _check_network_options(config.default_network_opts)
    if config.host_firewall not in ("respect", "open"):
        raise InvalidArgument(f"host-firewall {config.host_firewall}: use respect or open")


def _check_router(flag: str, address: str, bridge: str, containers: str) -> None:
    whole = bridge or containers
    if address and (not whole or ipaddress.ip_address(address) not in ipaddress.ip_interface(whole).network):
        names = "--bip6 or --fixed-cidr-v6" if ":" in address else "--bip or --fixed-cidr"
        raise InvalidArgument(
            f"{flag} {address}: not in the subnet of the default network ({whole or 'none is chosen'})",
            hint=f"name a subnet that it is in, with {names}",
        )


def _check_range(flag: str, bridge: str, range_flag: str, containers: str) -> None:
    if not (bridge and containers):
        return
    subnet, part = ipaddress.ip_interface(bridge).network, ipaddress.ip_network(containers)
    if not (subnet[0] <= part[0] and part[-1] <= subnet[-1]):  # type: ignore[operator]  # both are of one family
        raise InvalidArgument(f"{range_flag} {containers}: not a part of {flag} {bridge}")


def _check_host_gateways(addresses: list[str]) -> None:
    versions = [_parsed(ipaddress.ip_address, address, "--host-gateway-ip").version for address in addresses]
    if len(set(versions)) < len(versions):
        raise InvalidArgument(
            f"--host-gateway-ip: {', '.join(addresses)}: more than one address of a family", hint="name one of each"
        )


def _check_pools(config: Config) -> None:
    for pool in config.default_address_pools:
        whole = _parsed(ipaddress.ip_network, pool.get("base", ""), "--default-address-pool base")
        size = str(pool.get("size", ""))
        length = digits.whole(size, whole.max_prefixlen - 2)
        if length is None or length < whole.prefixlen:
            raise InvalidArgument(f"--default-address-pool size={size}: no subnet of {whole} has this length")


def _check_network_options(options: dict[str, dict[str, str]]) -> None:
    for driver, chosen in options.items():
        if not isinstance(chosen, dict) or not all(isinstance(value, str) for value in chosen.values()):
            raise InvalidArgument(f"default-network-opts: {driver}: not texts by name")


def _parsed(parse: Callable[[str], Any], value: str, what: str) -> Any:
    try:
        return parse(value)
    except ValueError as e:
        raise InvalidArgument(f"{what} {value}: {e}") from e
