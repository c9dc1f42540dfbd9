"""A container's ``/etc/hosts``, ``/etc/resolv.conf`` and ``/etc/hostname``: their content, and writing.

They are files of the container's directory, bind-mounted into it: they are written in place, never replaced.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.engine.spec import bundle
from ketch.network import files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.model.records import Container
    from ketch.network.model.record import Endpoint

RESOLVER = "127.0.0.11"
NAMES = ("hosts", "resolv.conf", "hostname")


def of_container(
    container: Container, lines: str, dns: DnsDefaults, gateways: Sequence[str], *, own_resolver: bool
) -> dict[str, str]:
    """The texts of the files by name, for a container with its own network namespace.

    ``lines`` are those of ``/etc/hosts`` that change with its networks, ``gateways`` are the addresses that
    ``host-gateway`` means; ``own_resolver`` says that names are answered at 127.0.0.11.
    """
    host, config = container.host, container.config
    options = host.dns_options or dns.options
    return {
        "hosts": files.hosts(bundle.hostname(container), config.domainname, "", host.extra_hosts or [], gateways)
        + lines,
        "resolv.conf": resolv(
            host.dns or dns.servers, host.dns_search or dns.search, options, own_resolver=own_resolver
        ),
    }


def resolv(servers: Sequence[str], search: Sequence[str], options: Sequence[str], *, own_resolver: bool) -> str:
    """The text of ``/etc/resolv.conf``, with the resolver at 127.0.0.11 in the place of the servers if it is there."""
    text = files.host_resolv_text()
    if own_resolver:
        servers, options = [RESOLVER], list(options) or files.parse_resolv(text)[2]
        if not any(o.startswith("ndots:") for o in options):
            options = [*options, "ndots:0"]
    return files.resolv(servers, search, options, text)


def of_host_network(container: Container, dns: DnsDefaults, gateways: Sequence[str]) -> dict[str, str]:
    """The texts of the files for a container in the host's network: the host's own, unless it asks for something."""
    host = container.host
    own = of_container(container, "", dns, gateways, own_resolver=False)
    texts = {name: read_file(f"/etc/{name}") for name in ("hosts", "resolv.conf")}
    if host.extra_hosts:
        texts["hosts"] = own["hosts"]
    if host.dns or host.dns_search or host.dns_options:
        texts["resolv.conf"] = own["resolv.conf"]
    return texts


class DnsDefaults:
    """The daemon's own ``dns``, ``dns-search`` and ``dns-opts``, for containers that name none."""

    def __init__(self, servers: Sequence[str] = (), search: Sequence[str] = (), options: Sequence[str] = ()) -> None:
        self.servers = list(servers)
        self.search = list(search)
        self.options = list(options)


def address_lines(container: Container, endpoints: Sequence[Endpoint]) -> str:
    """The lines of ``/etc/hosts`` with the container's own addresses."""
    name, domain = bundle.hostname(container), container.config.domainname
    addresses = [a for e in endpoints for a in (e.ip, e.ip6) if a]
    return "".join(files.own_line(a, name, domain) for a in addresses) if name else ""


def write(directory: str, contents: dict[str, str]) -> None:
    """Write files in place: a full disk has room for what takes the place of as much, unless that is given up first."""
    for name, text in contents.items():
        data = text.encode()
        fd = os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with open(fd, "wb", buffering=0) as f:
            while len(data) > f.tell():
                f.write(data[f.tell() :])
            f.truncate()


def read(directory: str) -> dict[str, str]:
    """The contents of all three files; empty where one is missing."""
    return {name: read_file(os.path.join(directory, name)) for name in NAMES}


def read_file(path: str) -> str:
    """A small text file; empty when it is missing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def exchange_lines(text: str, old: str, new: str) -> str:
    """Replace Ketch's lines in a file that the container may have edited."""
    gone = set(old.splitlines())
    kept = [line for line in text.splitlines() if line not in gone]
    return "".join(f"{line}\n" for line in (*kept, *new.splitlines()))
