"""The text of a container's ``/etc/hosts`` and ``/etc/resolv.conf``."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument, UnclassifiedArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

_HOSTS_HEAD = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)
# What a container gets when the host names only resolvers that a container cannot reach (Docker's choice, too).
FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
SYSTEMD_RESOLVED = "/run/systemd/resolve/resolv.conf"


def hosts(hostname: str, domainname: str, ip: str, extra_hosts: Sequence[str], gateways: Sequence[str] = ()) -> str:
    """The text of a container's ``/etc/hosts``; ``ip`` is empty when it has no address of its own.

    ``extra_hosts`` are ``name:address`` (or ``name=address``, where an IPv6 address may stand in brackets); the address
    ``host-gateway`` means all of ``gateways``.  Raises InvalidArgument for anything else.
    """
    lines = [_HOSTS_HEAD]
    for entry in extra_hosts:
        name, address = parse_extra_host(entry)
        meant = gateways if address == "host-gateway" else (address,)
        lines += [f"{one}\t{name}\n" for one in meant]
    if ip and hostname:
        lines.append(own_line(ip, hostname, domainname))
    return "".join(lines)


def own_line(ip: str, hostname: str, domainname: str) -> str:
    """The line that names one of the container's own addresses."""
    full = f"{hostname}.{domainname}" if domainname else hostname
    first, dot, _ = full.partition(".")
    return f"{ip}\t{full} {first}\n" if dot else f"{ip}\t{full}\n"


def parse_extra_host(entry: str) -> tuple[str, str]:
    """Split one ``--add-host`` value into name and address (``host-gateway`` is passed through)."""
    name, separator, address = entry.partition("=") if "=" in entry else entry.partition(":")
    if not name or not separator or not address or any(c.isspace() and c != " " for c in entry):
        raise InvalidArgument(f'bad format for add-host: "{entry}"', hint="use --add-host NAME:ADDRESS")
    if address == "host-gateway":
        return name, address
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    try:
        ipaddress.ip_address(address)
    except ValueError as e:
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"', hint="use an IPv4 or IPv6 address") from e
    return name, address


def is_address(text: str) -> bool:
    """Whether the text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check_name_servers(servers: Sequence[str]) -> None:
    """UnclassifiedArgument, in Docker's words, for a name server that is no address."""
    for server in servers:
        if not is_address(server):
            raise UnclassifiedArgument(f'bad nameserver address {server}: ParseAddr("{server}"): unable to parse IP')


def resolv(dns: Sequence[str], search: Sequence[str], options: Sequence[str], host_text: str) -> str:
    """The text of a container's ``/etc/resolv.conf``: requested values, else the host's usable ones.

    Each of ``dns``, ``search`` and ``options`` replaces the host's when it is not empty; ``search == ["."]`` means
    none.  Nameservers on the host's loopback are left out, since a container's loopback is another one.
    """
    host_servers, host_search, host_options = parse_resolv(host_text)
    servers = list(dns) or [s for s in host_servers if not _unreachable(s)] or list(FALLBACK_NAMESERVERS)
    domains = list(search) or host_search
    if domains == ["."]:
        domains = []
    lines = [f"nameserver {server}\n" for server in servers]
    if domains:
        lines.append(f"search {' '.join(domains)}\n")
    if chosen := list(options) or host_options:
        lines.append(f"options {' '.join(chosen)}\n")
    return "".join(lines)


def parse_resolv(text: str) -> tuple[list[str], list[str], list[str]]:
    """Nameservers, search domains and options of a resolv.conf(5); the last ``search``/``domain`` line counts."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = words[1:]
        elif words[0] == "options":
            options += words[1:]
    return servers, search, options


def host_own_text() -> str:
    """The host's resolv.conf as it is, with servers that only the host itself can ask; empty when there is none."""
    return _read("/etc/resolv.conf")


def host_resolv_text() -> str:
    """The host's resolv.conf; behind systemd-resolved's stub, the file that names the real servers. Empty when none."""
    text = _read("/etc/resolv.conf")
    servers = parse_resolv(text)[0]
    if servers and all(_unreachable(s) for s in servers):
        return _read(SYSTEMD_RESOLVED) or text
    return text


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def _unreachable(server: str) -> bool:
    """Whether a nameserver is of no use inside a container: loopback, or bound to one of the host's interfaces."""
    try:
        return "%" in server or ipaddress.ip_address(server).is_loopback
    except ValueError:
        return True
