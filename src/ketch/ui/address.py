"""Addresses at which the page may be served."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from ketch.errors import InvalidArgument
from ketch.notation import digits

DEFAULT = "127.0.0.1:2370"


class PageAddress(NamedTuple):
    """A host (a name or an IP address, without brackets) and a port; 0 is any free one."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The same as ``tcp://``, which sockets are bound by."""
        return f"tcp://{self.authority}"

    @property
    def authority(self) -> str:
        """As it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_everywhere(self) -> bool:
        """Whether it is each of the machine's addresses."""
        return self.host in ("0.0.0.0", "::")


def parse(text: str, *, secured: bool) -> PageAddress:
    """``ADDRESS:PORT`` (InvalidArgument, also for one that others reach when there is no TLS: not ``secured``)."""
    host, colon, port = text.rpartition(":")
    number = digits.whole(port, 65535)
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host) or number is None or "/" in host:
        raise InvalidArgument(f"serve the page on `{text}`: not an address", hint=f"write ADDRESS:PORT, as {DEFAULT}")
    address = PageAddress(host, number)
    if not secured and not address.is_loopback:
        raise InvalidArgument(
            f"serve the page on `{text}`: refused, because without TLS others could read its cookie and be root here",
            hint="serve it on 127.0.0.1 (over SSH: ssh -L), or give ketchd --tls with --tlscert and --tlskey",
        )
    return address
