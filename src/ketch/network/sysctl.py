"""The kernel settings (``/proc/sys/net``, of the calling thread's network namespace) that a bridge needs."""

from __future__ import annotations

import os

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
    """Keep IPv6 off a bridge without it, and router advertisements off one with it."""
    directory = f"/proc/sys/net/ipv6/conf/{bridge}"
    if os.path.isdir(directory):
        _write(f"{directory}/disable_ipv6", "0" if ipv6 else "1")
        if ipv6:
            _write(f"{directory}/accept_ra", "0")


def forwarding6() -> bool:
    """Whether this host forwards IPv6 packets."""
    return not os.path.exists(_IP6_FORWARD) or _read(_IP6_FORWARD) != "0"


def set_forwarding6(enabled: bool) -> None:
    """Turn IPv6 forwarding of the whole host on or off.

    A host that forwards ignores router advertisements unless told to listen all the same: interfaces that listen now
    go on listening, or the host would lose its own default route when it expires.
    """
    if enabled:
        for name in os.listdir(_IP6_CONF):
            if _read(f"{_IP6_CONF}/{name}/accept_ra") == "1":
                _write(f"{_IP6_CONF}/{name}/accept_ra", "2")
    _write(_IP6_FORWARD, "1" if enabled else "0")


def forwarding() -> bool:
    """Whether this host forwards IPv4 packets."""
    return _read(_IP_FORWARD) != "0"


def set_forwarding(enabled: bool) -> None:
    """Turn IPv4 forwarding of the whole host on or off."""
    _write(_IP_FORWARD, "1" if enabled else "0")


def boot_id() -> str:
    """Changes with each boot of the machine."""
    return _read("/proc/sys/kernel/random/boot_id")
