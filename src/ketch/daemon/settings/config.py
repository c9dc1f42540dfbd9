"""The daemon's settings, once they are known (`ketch.daemon.settings.load`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

from ketch.engine.userns import pool
from ketch.errors import InvalidArgument
from ketch.notation import digits
from ketch.runtime.logs import journald


class AddressPool(TypedDict, total=False):
    """One of ``default-address-pools``: subnets of ``size`` bits (a number, or its digits) out of ``base``."""

    base: str
    size: int | str


@dataclass
class Config:
    """The settings of ``ketchd``; paths are absolute, ``hosts`` are URLs."""

    data_root: str = ""  # both as `ketch.places` has them
    exec_root: str = ""
    hosts: list[str] = field(default_factory=list)
    pidfile: str = ""
    bridge: str = "ketch0"
    bip: str = ""
    mtu: int = 1500
    ip: str = "0.0.0.0"
    icc: bool = True
    ip_masq: bool = True
    ipv6: bool = False
    fixed_cidr_v6: str = ""
    default_address_pools: list[AddressPool] = field(default_factory=list)
    dns: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    dns_opts: list[str] = field(default_factory=list)
    host_gateway_ip: str = ""
    host_firewall: str = "respect"
    exec_opts: list[str] = field(default_factory=list)
    cgroup_parent: str = ""  # see `ketch.daemon.settings.cgroups`
    userns_remap: str = ""
    userns_default: str = ""
    userns_pool: str = pool.DEFAULT_USER
    userns_copy: bool = False
    group: str = "docker"
    log_level: str = "info"
    log_driver: str = ""
    log_opts: dict[str, str] = field(default_factory=dict)
    journald_socket: str = journald.SOCKET
    tls: bool = False
    tlsverify: bool = False
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    insecure_tcp: bool = False
    builder_addrs: list[str] = field(default_factory=list)
    builder_tlscacert: str = ""
    builder_tlscert: str = ""
    builder_tlskey: str = ""
    tcp_names: list[str] = field(default_factory=list)
    insecure_registries: list[str] = field(default_factory=list)
    registry_mirrors: list[str] = field(default_factory=list)
    registry_certs: list[str] = field(default_factory=list)
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    registry_stall_timeout: int = 30
    storage_opts: list[str] = field(default_factory=list)
    storage_driver: str = ""
    builder: dict[str, object] = field(default_factory=dict)  # of the file alone (`ketch.daemon.settings.builder`)
    runtimes: dict[str, object] = field(default_factory=dict)  # see `ketch.daemon.settings.runtimes`
    default_runtime: str = "ketch"
    repair: bool = False
    prune_lost: bool = False

    def names(self) -> list[str]:
        """The names by which clients on plain TCP may call this daemon, beside the machine's own."""
        return [*self.tcp_names, *(tcp_address(host)[0] for host in self.hosts if host.startswith("tcp://"))]


def tcp_address(host: str) -> tuple[str, int]:
    """``tcp://ADDRESS[:PORT]`` → (address, port); 2375 without, as Docker's convention has it."""
    rest = host.partition("://")[2]
    address, colon, port = rest.rpartition(":")
    if not colon or address.count("[") != address.count("]"):
        address, port = rest, "2375"
    number = digits.whole(port, 65535)
    if number is None:
        raise InvalidArgument(f"listen on `{host}`: `{port}` is not a port")
    return address.strip("[]") or "0.0.0.0", number  # what an empty address means
