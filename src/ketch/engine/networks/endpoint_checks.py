"""Checks of a container's settings for one network, in Docker's words and order."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from ketch.engine.model.records import EndpointIpam
from ketch.errors import InvalidArgument
from ketch.network.links import interface_sysctls
from ketch.network.model import ipam
from ketch.network.model import record as r

if TYPE_CHECKING:
    from ketch.engine.model.records import EndpointFields
    from ketch.network.model.record import NetworkRecord

Strings = list[str]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NOT_OF_USERS = (*r.PREDEFINED, "default")
_NOT_THEIRS = "user specified IP address is supported only when connecting to networks with user configured subnets"


def check_settings(name: str, record: NetworkRecord | None, settings: EndpointFields) -> None:
    """Check a container's settings for a network, None: one that is not there (InvalidArgument)."""
    config = settings.ipam_config or EndpointIpam()
    given = {version: text for version, text in ((4, config.ipv4 or ""), (6, config.ipv6 or "")) if text}
    wrong = _not_for_users(settings, given) if name in _NOT_OF_USERS else []
    wrong += [f"invalid IPv{version} address: {text}" for version, text in given.items() if not _fits(version, text)]
    for text in config.link_local or ():
        address = address_of(text)
        if address is None or address.is_unspecified:
            wrong.append(f"invalid link-local IP address: {text}")
    if record is not None:
        wrong += [fault for version, text in given.items() for fault in _out_of_range(record, version, text)]
    if settings.mac_address:
        ipam.check_mac(settings.mac_address)
    if (option := (settings.driver_opts or {}).get(r.ENDPOINT_SYSCTLS)) is not None:
        wrong += interface_sysctls.unreadable(option)
    if wrong:
        faults = "\n".join(wrong if len(wrong) == 1 else [f"* {fault}" for fault in wrong])
        raise InvalidArgument(f"invalid endpoint settings:\n{faults}")


def address_of(text: str) -> Address | None:
    """The address that a text is; None for another text."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _not_for_users(settings: EndpointFields, given: dict[int, str]) -> Strings:
    wrong = ["user specified IP address is supported on user defined networks only"] if given else []
    if settings.aliases:
        wrong.append("network-scoped alias is supported only for containers in user defined networks")
    return wrong


def _fits(version: int, text: str) -> bool:
    """Whether a container can have an address of the family; one of IPv4 may be written as ::ffff:10.0.0.1."""
    address = address_of(text)
    if address is None or address.is_unspecified or "%" in text:
        return False
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    return version == 4 if mapped else address.version == version


def _out_of_range(record: NetworkRecord, version: int, text: str) -> Strings:
    given = [p for p in record.pools if p.version == version and p.given]
    if not given:
        return [_NOT_THEIRS]
    if any(ipam.contains(pool.network, ipam.unmapped(text)) for pool in given):
        return []
    return [f"no configured subnet or ip-range contain the IP address {text}"]
