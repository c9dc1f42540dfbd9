"""Settings for registries: those without TLS, mirrors, certificates, time limits."""

from __future__ import annotations

import ipaddress

from msgspec import Struct

CERTIFICATES = ("/etc/ketch/certs.d", "/etc/docker/certs.d")
_LOOPBACK = ("127.0.0.0/8", "::1/128")


class Settings(Struct, frozen=True):
    """``insecure``: hosts (with their port) or CIDR ranges; ``mirrors``: URLs, for Docker Hub's images alone.

    A request is tried ``attempts`` times; a connection on which nothing comes for ``stall_s`` seconds counts as broken.
    """

    insecure: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    certificates: tuple[str, ...] = CERTIFICATES
    attempts: int = 5
    connect_s: float = 15.0
    stall_s: float = 30.0
    pause_s: float = 0.5
    user_agent: str = "ketch"

    def is_insecure(self, host: str) -> bool:
        """Whether ``host[:port]`` may be used without TLS or with an unverified certificate."""
        if host in self.insecure:
            return True
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        name = name.strip("[]")
        if name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        ranges = [*_LOOPBACK, *(text for text in self.insecure if "/" in text)]
        return any(address in ipaddress.ip_network(text, strict=False) for text in ranges)
