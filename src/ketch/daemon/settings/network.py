"""The daemon's network settings, in the network package's words."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import TYPE_CHECKING

from ketch.engine.spec.etc_files import DnsDefaults
from ketch.network.model import ipam
from ketch.network.model import record as r
from ketch.network.model.ipam import Base
from ketch.network.model.record import NetworkRecord, Pool
from ketch.notation import booleans

if TYPE_CHECKING:
    from ketch.daemon.settings.config import Config
    from ketch.network.manager import NetworkManager

_DEFAULT_BRIDGE = "ketch0"


def table_name(config: Config) -> str:
    """The firewall table: one a daemon."""
    if config.bridge == "none":
        return "ketch-" + hashlib.sha256(config.data_root.encode()).hexdigest()[:8]
    return "ketch" if config.bridge == _DEFAULT_BRIDGE else f"ketch-{config.bridge}"


def bases(config: Config, engine_id: str) -> list[Base]:
    """The pools of subnets: ``default-address-pools`` for the families that it names, else our own."""
    chosen = [Base(str(pool["base"]), int(pool["size"])) for pool in config.default_address_pools]
    versions = {ipaddress.ip_network(base.base).version for base in chosen}
    if 4 not in versions:
        chosen += ipam.DEFAULT_BASES
    if 6 not in versions:
        chosen.append(ipam.ula_base(engine_id))
    return chosen


def default_network(config: Config, manager: NetworkManager) -> None:
    """Make the network ``bridge``, or bring it in line with the settings; ``--bridge none``: do without it."""
    if config.bridge == "none":
        manager.drop_default()
        return
    options = {
        r.OPTION_BIND: config.ip,
        r.OPTION_ICC: booleans.write(config.icc),
        r.OPTION_MASQUERADE: booleans.write(config.ip_masq),
    }
    pools = []
    if config.ipv6 and config.fixed_cidr_v6:
        pools.append(Pool(subnet=config.fixed_cidr_v6, given=False))
    wanted = NetworkRecord(
        id="", name="bridge", driver=r.BRIDGE, created=0, pools=tuple(pools), ipv6=config.ipv6, options=options
    )
    manager.set_default(config.bridge, config.bip or None, config.mtu, wanted)


def dns_defaults(config: Config) -> DnsDefaults:
    """The DNS settings of containers that have none of their own."""
    return DnsDefaults(config.dns, config.dns_search, config.dns_opts)
