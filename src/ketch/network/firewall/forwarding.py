"""Packet forwarding of the host, turned on without making a router of it.

Containers need ``ip_forward``, which is one switch for all interfaces.  Where the engine is the one who turns it on,
it notes the interfaces of that moment, and the firewall table keeps dropping packets *between them*: the host
forwards for containers, and for interfaces that somebody adds later (a VPN, another bridge), but two of its networks
that were apart stay apart.  The note is ``BOOT_ID:name,name…``: it holds until the next boot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.linux.netlink import links
from ketch.network.links import sysctl

if TYPE_CHECKING:
    from collections.abc import Collection

    from ketch.linux.netlink.client import Netlink


def enable(rtnl: Netlink, note: str, own: Collection[str]) -> str:
    """Turn IPv4 forwarding on when it is off; return the note to keep.  ``own`` are our own links."""
    boot = sysctl.boot_id()
    if sysctl.forwarding():
        return note if note.startswith(boot + ":") else ""
    names = _others(rtnl, own)
    sysctl.set_forwarding(True)
    return f"{boot}:{','.join(names)}"


def enable6(rtnl: Netlink, note: str, own: Collection[str]) -> str:
    """Turn IPv6 forwarding on likewise; called when the first network with IPv6 is made."""
    boot = sysctl.boot_id()
    if sysctl.forwarding6():
        return note if note.startswith(boot + ":") else ""
    names = _others(rtnl, own)
    sysctl.set_forwarding6(True)
    return f"{boot}:{','.join(names)}"


def keep_listening(rtnl: Netlink, note: str, own: Collection[str]) -> str:
    """Before `enable6`: let the host's interfaces go on taking router advertisements; returns the note of which."""
    boot = sysctl.boot_id()
    if sysctl.forwarding6():
        return note if note.startswith(boot + ":") else ""
    return f"{boot}:{','.join(sysctl.listen_on(_others(rtnl, own)))}"


def restore(rtnl: Netlink, note: str, note6: str, listening: str, own: Collection[str]) -> None:
    """Turn forwarding off again if we turned it on and no interface came since that may need it."""
    others = set(_others(rtnl, own))
    if note and others <= set(interfaces(note)):
        sysctl.set_forwarding(False)
    if note6 and others <= set(interfaces(note6)):
        sysctl.set_forwarding6(False)
        sysctl.listen_plainly(interfaces(listening))


def interfaces(note: str) -> list[str]:
    """The interfaces that the note names."""
    return [name for name in note.partition(":")[2].split(",") if name]


def _others(rtnl: Netlink, own: Collection[str]) -> list[str]:
    return [link.name for link in links.list_links(rtnl) if link.name not in ("lo", *own) and '"' not in link.name]
