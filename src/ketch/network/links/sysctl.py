"""The kernel settings (``/proc/sys/net``, of the calling thread's network namespace) that a bridge needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"
_IP6_CONF = "/proc/sys/net/ipv6/conf"
_IP6_FORWARD = f"{_IP6_CONF}/all/forwarding"


def _write(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as f:
        f.write(value)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as f:
        return f.read().strip()


def route_loopback(bridge: str) -> None:
    """Let the host reach published ports through its own loopback addresses.

    That alone would let containers reach services on the host's loopback: the firewall's ``guard`` chain drops such
    packets before routing sees them.
    """
    _write(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet", "1")


def prepare_bridge(bridge: str, *, ipv6: bool) -> None:
    """Keep IPv6 off a bridge without it, and router advertisements off one with it.

    Its link-local address comes of a MAC of our own and is not probed for: while it is, for two seconds, the host
    cannot ask for a container's link address, and whoever connects to a published port waits, or gets no route.
    """
    directory = f"{_IP6_CONF}/{bridge}"
    if os.path.isdir(directory):
        if ipv6:
            _write(f"{directory}/accept_ra", "0")
            _write(f"{directory}/accept_dad", "0")
        _write(f"{directory}/disable_ipv6", "0" if ipv6 else "1")


def silence(link: str) -> None:
    """Turn IPv6 off on the host's end of a container's link (the bridge has the host's addresses)."""
    path = f"{_IP6_CONF}/{link}/disable_ipv6"
    if os.path.exists(path):
        _write(path, "1")


def forwarding6() -> bool:
    """Whether this host forwards IPv6 packets."""
    return not os.path.exists(_IP6_FORWARD) or _read(_IP6_FORWARD) != "0"


def set_forwarding6(enabled: bool) -> None:
    """Turn IPv6 forwarding of the whole host on or off."""
    _write(_IP6_FORWARD, "1" if enabled else "0")


def listen_on(names: Iterable[str]) -> list[str]:
    """Keep interfaces accepting router advertisements while the host forwards; returns those changed.

    A host that forwards ignores advertisements unless told otherwise, and would lose its own default route when it
    expires.  ``all`` and ``default`` are not asked: links that are made later take none.
    """
    return [name for name in names if _exchange_ra(name, "1", "2")]


def listen_plainly(names: Iterable[str]) -> None:
    """Undo `listen_on`."""
    for name in names:
        _exchange_ra(name, "2", "1")


def _exchange_ra(name: str, old: str, new: str) -> bool:
    path = f"{_IP6_CONF}/{name}/accept_ra"
    if not os.path.exists(path) or _read(path) != old:
        return False
    _write(path, new)
    return True


def forwarding() -> bool:
    """Whether this host forwards IPv4 packets."""
    return _read(_IP_FORWARD) != "0"


def set_forwarding(enabled: bool) -> None:
    """Turn IPv4 forwarding of the whole host on or off."""
    _write(_IP_FORWARD, "1" if enabled else "0")


def boot_id() -> str:
    """The kernel's boot id, which changes with each boot."""
    return _read("/proc/sys/kernel/random/boot_id")
