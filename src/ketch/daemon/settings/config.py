"""The daemon's settings, once they are known (`ketch.daemon.settings.load`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

from ketch.engine.devices import specs
from ketch.engine.userns import pool
from ketch.errors import InvalidArgument
from ketch.notation import digits
from ketch.runtime.logs import journald
from ketch.ui import address as ui_address

_LEVELS = {"warn": "WARNING", "fatal": "CRITICAL"}


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
    docker_socket: str = ""  # where a link to the first unix socket is made
    pidfile: str = ""
    bridge: str = "ketch0"
    bip: str = ""
    bip6: str = ""
    default_gateway: str = ""
    default_gateway_v6: str = ""
    default_network_opts: dict[str, dict[str, str]] = field(default_factory=dict)  # by driver
    mtu: int = 1500
    ip: str = "0.0.0.0"
    icc: bool = True
    ip_masq: bool = True
    ipv6: bool = False
    allow_direct_routing: bool = False
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    default_address_pools: list[AddressPool] = field(default_factory=list)
    dns: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    dns_opts: list[str] = field(default_factory=list)
    host_gateway_ips: list[str] = field(default_factory=list)
    host_firewall: str = "respect"
    exec_opts: list[str] = field(default_factory=list)
    cgroup_parent: str = ""  # see `ketch.daemon.settings.cgroups`
    cgroup_base: str = ""  # in which it and containers' own parents are
    live_restore: bool = True
    shutdown_timeout: int = 15  # seconds
    userns_remap: str = ""
    userns_default: str = ""
    userns_pool: str = pool.DEFAULT_USER
    userns_copy: bool = False
    group: str = "docker"
    log_level: str = "info"
    log_format: str = "text"
    log_driver: str = ""
    log_opts: dict[str, str] = field(default_factory=dict)
    journald_socket: str = journald.SOCKET
    init: bool = False
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    default_shm_size: str = ""
    default_ulimits: dict[str, object] = field(default_factory=dict)
    default_ipc_mode: str = ""
    default_cgroupns_mode: str = ""
    cdi_spec_dirs: list[str] = field(default_factory=lambda: list(specs.DIRECTORIES))
    labels: list[str] = field(default_factory=list)
    proxies: dict[str, str] = field(default_factory=dict)
    tls: bool = False
    tlsverify: bool = False
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    insecure_tcp: bool = False
    metrics_addr: str = ""  # HOST:PORT
    builder_addrs: list[str] = field(default_factory=list)
    builder_tlscacert: str = ""
    builder_tlscert: str = ""
    builder_tlskey: str = ""
    tcp_names: list[str] = field(default_factory=list)
    ui: str = ""  # ADDRESS:PORT of the page (`ketch.ui`)
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
    private: str = ""  # the state directory of a daemon that lives as long as programs use it
    notes: list[str] = field(default_factory=list)  # on dockerd's settings that mean nothing here
    validate: bool = False
    repair: bool = False
    prune_lost: bool = False

    @property
    def level(self) -> str:
        """The level of the log, as `logging` calls it."""
        return _LEVELS.get(self.log_level, self.log_level.upper())

    def names(self) -> list[str]:
        """The names by which clients on plain TCP may call this daemon, beside the machine's own."""
        return [*self.tcp_names, *(tcp_address(host)[0] for host in self.hosts if host.startswith("tcp://"))]

    def metrics_url(self) -> str:
        """The address for Prometheus in the form of ``hosts``; empty: there is none."""
        return f"tcp://{self.metrics_addr}" if self.metrics_addr else ""

    def ui_url(self) -> str:
        """The page's address in the form of ``hosts``; empty: it is served when somebody asks for it."""
        return ui_address.parse(self.ui, secured=True).url if self.ui else ""


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
