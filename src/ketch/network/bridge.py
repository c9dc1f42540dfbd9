"""The bridge: made once, adopted after a restart, never taken from somebody else.

Two marks say whose it is.  A socket bound to an abstract name (which the kernel keeps apart for each network
namespace and releases when its process dies) tells running daemons apart; the link's alias, ``ketch:<network id>``,
tells the data roots apart whose containers may still be attached.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import TYPE_CHECKING

from ketch.errors import Conflict, FailedPrecondition
from ketch.network import ipam, links

if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Iterator

    from ketch.network.netlink import Netlink

_ALIAS = "ketch:"
_TURN = "\0ketch/subnets"
_TURN_TIMEOUT_S = 10.0


def claim(name: str) -> socket.socket:
    """Become the one daemon that uses this bridge, until the socket is closed (Conflict when there is another)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.bind(f"\0ketch/bridge/{name}")
    except OSError as e:
        sock.close()
        if e.errno != errno.EADDRINUSE:
            raise
        raise Conflict(
            f"use bridge `{name}`: another ketchd uses it", hint="give each daemon its own --bridge and --bip"
        ) from e
    return sock


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """One daemon at a time in this network namespace: while a subnet is chosen and until its address is in place."""
    sock = _take_turn()
    try:
        yield
    finally:
        sock.close()


def _take_turn() -> socket.socket:
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(_TURN)
            sock.listen(64)
            return sock
        except OSError as e:
            sock.close()
            if e.errno != errno.EADDRINUSE:
                raise
        # Connecting to the holder and reading ends when it closes its socket, or dies.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting, contextlib.suppress(ConnectionError):
            waiting.settimeout(_TURN_TIMEOUT_S)
            waiting.connect(_TURN)
            waiting.recv(1)


def ensure(rtnl: Netlink, name: str, gateway: ipaddress.IPv4Interface, mtu: int, network_id: str) -> links.Link:
    """Make the bridge or adopt it; afterwards it is up and has the gateway's address."""
    link = links.find_link(rtnl, name)
    if link is None:
        rtnl.run(links.new_bridge(name, ipam.mac_for(int(gateway.ip)), mtu, _ALIAS + network_id))
        link = links.get_link(rtnl, name)
    _check(rtnl, link, network_id)
    present = [address for index, address in links.list_addresses(rtnl) if index == link.index]
    if gateway not in present:
        rtnl.run([links.add_address(link.index, gateway)])
    if is_ours(link):
        for address in present:
            if address != gateway:
                rtnl.run([links.delete_address(link.index, address)])
    if not link.up:
        rtnl.run([links.set_up(index=link.index)])
    return link


def _check(rtnl: Netlink, link: links.Link, network_id: str) -> None:
    if link.kind != "bridge":
        raise FailedPrecondition(
            f"use `{link.name}` as bridge: it is another kind of link ({link.kind or 'device'})",
            hint="choose another name with --bridge",
        )
    if is_ours(link) and link.alias != _ALIAS + network_id:
        if port_names(rtnl, link.name):
            raise Conflict(
                f"use bridge `{link.name}`: containers of another data root are attached to it",
                hint="stop them, or give this daemon its own --bridge and --bip",
            )
        rtnl.run(links.mark(link.name, _ALIAS + network_id))


def is_ours(link: links.Link) -> bool:
    """Whether Ketch made the bridge (one that the administrator made is used, and left in place at the end)."""
    return link.alias.startswith(_ALIAS)


def port_names(rtnl: Netlink, name: str) -> list[str]:
    """Names of the links attached to a bridge; none when there is no such bridge."""
    everything = links.list_links(rtnl)
    index = next((link.index for link in everything if link.name == name), -1)
    return [link.name for link in everything if link.master == index]


def used_networks(rtnl: Netlink, bridge: str) -> list[ipaddress.IPv4Network]:
    """Subnets that this host has addresses in or routes to, apart from the bridge's own."""
    own = links.find_link(rtnl, bridge)
    index = own.index if own else 0
    addresses = [address.network for i, address in links.list_addresses(rtnl) if i != index]
    return addresses + [network for i, network in links.list_routes(rtnl) if i != index]
