"""A machine for a user's daemon: a network namespace with a wire to another machine, beyond which there are addresses.

the daemon's machine          the other machine
192.0.2.1, 2001:db8:1::1 ──── 192.0.2.2, 2001:db8:1::2
                              198.51.100.7, 2001:db8:2::7   (routed there)
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from typing import TYPE_CHECKING, TypeVar

from ketch.linux.netlink import addresses, links
from ketch.linux.netlink import client as netlink
from tests.support import netns
from tests.support.programs import need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from tests.support.netns import Netns

T = TypeVar("T")
HERE, THERE, FAR = "192.0.2.1", "192.0.2.2", "198.51.100.7"
HERE6, THERE6, FAR6 = "2001:db8:1::1", "2001:db8:1::2", "2001:db8:2::7"
LINK = "uplink"


class UsersMachine:
    """Both namespaces; ``here`` is the daemon's."""

    def __init__(self, here: Netns, there: Netns) -> None:
        self.here, self.there = here, there

    @property
    def prefix(self) -> list[str]:
        """The beginning of a command line for a program on the daemon's machine."""
        return [need("nsenter"), f"--net=/proc/{os.getpid()}/fd/{self.here.fd}"]

    def setting(self, name: str, value: str) -> None:
        """Write a file of /proc/sys/net on the daemon's machine."""
        with self.here.entered(), open(f"/proc/sys/net/{name}", "w", encoding="ascii") as f:
            f.write(value)


@contextlib.contextmanager
def users_machine(*, ipv6: bool = True) -> Iterator[UsersMachine]:
    """Such a machine until the end of the context."""
    with netns.Netns() as here:
        with here.entered(), netlink.Netlink() as rtnl:
            rtnl.run([links.set_up(index=links.LOOPBACK_INDEX)])
            there = netns.outside_machine(f"{THERE}/24", f"{HERE}/24", LINK)
            index = links.get_link(rtnl, LINK).index
            rtnl.run([addresses.default_route(index, ipaddress.ip_address(THERE))])
            if ipv6:
                _wire6(rtnl, index, there)
        with there:
            with netlink.Netlink(there.rtnl_fd) as inside:
                lo = links.LOOPBACK_INDEX
                inside.run([addresses.add_address(lo, ipaddress.ip_interface(f"{FAR}/32"))])
                if ipv6:
                    inside.run([addresses.add_address(lo, ipaddress.ip_interface(f"{FAR6}/128"))])
            yield UsersMachine(here, there)


def _wire6(rtnl: netlink.Netlink, index: int, there: Netns) -> None:
    with netlink.Netlink(there.rtnl_fd) as inside:
        other = links.get_link(inside, "eth0").index
        inside.run([addresses.add_address(other, ipaddress.ip_interface(f"{THERE6}/64"))])
    rtnl.run(
        [
            addresses.add_address(index, ipaddress.ip_interface(f"{HERE6}/64")),
            addresses.default_route(index, ipaddress.ip_address(THERE6)),
        ]
    )


def in_namespace(space: Netns, function: Callable[..., T], *args: Any) -> T:
    """The result of a call in a namespace."""
    with space.entered():
        return function(*args)


def datagrams(address: str, port: int) -> socket.socket:
    """A bound socket for datagrams in this thread's present namespace."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(netns.TIMEOUT_S)
    sock.bind((address, port))
    return sock
