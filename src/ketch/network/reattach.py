"""Reattachment of containers' interfaces to a bridge that was removed from the host and made again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ketch.linux.netlink import links
from ketch.network.links import endpoint
from ketch.network.model import record as r

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.linux.netlink.client import Netlink
    from ketch.network.live import LiveNetwork

log = logging.getLogger(__name__)


def lost(rtnl: Netlink, network: LiveNetwork) -> bool:
    """Whether the network's link is missing."""
    if network.link is None:
        return False
    found = links.find_link(rtnl, network.link.name)
    gone = found is None or found.index != network.link.index
    if gone:
        log.warning("network: link `%s` of network %s was removed", network.link.name, network.record.name)
    return gone


def attach(rtnl: Netlink, networks: Iterable[LiveNetwork]) -> list[str]:
    """Attach the detached interfaces; returns what was done.  Those that others attached elsewhere stay."""
    bridged = [n for n in networks if n.link is not None and n.record.driver == r.BRIDGE and n.endpoints]
    present = {link.name: link for link in links.list_links(rtnl)} if bridged else {}
    done = []
    for network in bridged:
        assert network.link is not None
        for made in network.endpoints.values():
            interface = present.get(made.veth)
            if interface is None or interface.master:
                continue
            isolated = not network.record.flag(r.OPTION_ICC, True)
            endpoint.attach(rtnl, made, interface.index, network.link.index, isolated=isolated)
            done.append(f"attached container {made.container_id[:12]} to network {network.record.name} again")
            log.warning("network: %s", done[-1])
    return done
