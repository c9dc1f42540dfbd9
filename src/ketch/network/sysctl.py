"""The kernel settings (``/proc/sys/net``, of the calling thread's network namespace) that a bridge needs."""

from __future__ import annotations

import os

_IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"


def _write(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as f:
        f.write(value)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as f:
        return f.read().strip()


def prepare_bridge(bridge: str) -> None:
    """Let the host reach published ports through its own loopback addresses; keep IPv6 off the bridge.

    route_localnet alone would let containers reach services on the host's loopback: the firewall's ``guard`` chain
    drops that before routing sees it.
    """
    _write(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet", "1")
    ipv6 = f"/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"
    if os.path.exists(ipv6):
        _write(ipv6, "1")


def forwarding() -> bool:
    """Whether this host forwards IPv4 packets."""
    return _read(_IP_FORWARD) != "0"


def set_forwarding(enabled: bool) -> None:
    """Turn IPv4 forwarding of the whole host on or off."""
    _write(_IP_FORWARD, "1" if enabled else "0")


def boot_id() -> str:
    """Changes with each boot of the machine."""
    return _read("/proc/sys/kernel/random/boot_id")
