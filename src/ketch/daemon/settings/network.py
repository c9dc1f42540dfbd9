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
    pools = [_pool(config.bip, config.fixed_cidr, {r.AUX_GATEWAY4: config.default_gateway})]
    if config.ipv6:
        pools.append(_pool(config.bip6, config.fixed_cidr_v6, {r.AUX_GATEWAY6: config.default_gateway_v6}))
    wanted = NetworkRecord(
        id="",
        name="bridge",
        driver=r.BRIDGE,
        created=0,
        pools=tuple(pool for pool in pools if pool is not None),
        ipv6=config.ipv6,
        options=options,
    )
    manager.set_default(config.bridge, None, config.mtu, wanted)


def _pool(bridge: str, containers: str, routers: dict[str, str]) -> Pool | None:
    """A subnet by the bridge's address, or by those of containers; None: whichever is free.

    ``routers``: another gateway than the bridge, by the name that it has among auxiliary addresses.
    """
    aux = {name: address for name, address in routers.items() if address}
    if bridge:
        own = ipam.parse_subnet(bridge) if ":" not in bridge else ipaddress.ip_interface(bridge)
        return Pool(subnet=str(own.network), gateway=str(own.ip), ip_range=containers, aux=aux, given=False)
    return Pool(subnet=containers, aux=aux, given=False) if containers else None


def dns_defaults(config: Config) -> DnsDefaults:
    """The DNS settings of containers that have none of their own."""
    return DnsDefaults(config.dns, config.dns_search, config.dns_opts)
