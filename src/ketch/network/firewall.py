"""The one nftables table of a bridge, through libnftables in this process.

    prerouting/raw   guard        what must never come from a container: the host's own loopback addresses
    prerouting/dstnat             a packet to a published port → the container      (from outside, from containers)
    output/dstnat                 the same for the host's own programs, 127.0.0.1 included
    forward          forward      into the bridge: only answers, neighbours and published ports
    postrouting      postrouting  outgoing connections get the host's address, as do those through the loopback

Published ports are elements of two maps; publishing is one transaction and look-up does not slow down with
their number.  ``accept`` ends the evaluation of *this* table's chain only: the host's own firewall sees every
forwarded packet as well and its ``drop`` is final (``ct original proto-dst`` is the published port there).
Nothing outside this table is ever read or changed.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from ketch.errors import FailedPrecondition, InvalidArgument, KetchError

if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Iterable, Sequence

    from ketch.network.endpoint import Binding, Endpoint

log = logging.getLogger(__name__)

ANY = "0.0.0.0"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_BATCH = 500


def check_name(name: str) -> str:
    """A name that can stand in a ruleset as it is (InvalidArgument otherwise)."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"invalid network name `{name}`", hint="use letters, digits, `_`, `.` and `-`")
    return name


def table_rules(table: str, bridge: str, subnet: ipaddress.IPv4Network, unforwarded: Sequence[str] = ()) -> str:
    """The whole table, replacing an older one in the same transaction.

    ``unforwarded`` are interfaces between which the host did not forward before the engine turned forwarding on.
    """
    guard = ""
    if unforwarded:
        names = ", ".join(f'"{name}"' for name in unforwarded)
        guard = f"iifname {{ {names} }} oifname {{ {names} }} drop"
    return f"""
add table ip {table}
delete table ip {table}
table ip {table} {{
  map published {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map published_on {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  chain publish {{
    meta l4proto {{ tcp, udp, sctp }} dnat ip to ip daddr . meta l4proto . th dport map @published_on
    fib daddr type local meta l4proto {{ tcp, udp, sctp }} dnat ip to meta l4proto . th dport map @published
  }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" ip saddr 127.0.0.0/8 drop
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr != 127.0.0.0/8 jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    jump publish
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" iifname "{bridge}" accept
    oifname "{bridge}" ct status dnat accept
    oifname "{bridge}" drop
    {guard}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{bridge}" ip saddr {{ {subnet}, 127.0.0.0/8 }} ct status dnat masquerade
    oifname != "{bridge}" ip saddr {subnet} masquerade
  }}
}}
"""


def elements(table: str, verb: str, ip: str, bindings: Iterable[Binding]) -> str:
    """``add`` or ``delete`` the map elements of one container's published ports."""
    anywhere, on_address = [], []
    for b in bindings:
        target = f" : {ip} . {b.container_port}" if verb == "add" else ""
        if b.host_ip == ANY:
            anywhere.append(f"{b.proto} . {b.host_port}{target}")
        else:
            on_address.append(f"{b.host_ip} . {b.proto} . {b.host_port}{target}")
    return "".join(
        f"{verb} element ip {table} {name} {{ {', '.join(items[i : i + _BATCH])} }}\n"
        for name, items in (("published", anywhere), ("published_on", on_address))
        for i in range(0, len(items), _BATCH)
    )


class Firewall:
    """The table of one bridge in the network namespace of the thread that makes this object; not thread-safe."""

    def __init__(self, table: str, bridge: str) -> None:
        self._table = check_name(table)
        self._bridge = check_name(bridge)
        try:
            # Loaded here: only a daemon with a network needs the library.
            import nftables

            self._nft = nftables.Nftables()
        except (ImportError, OSError) as e:
            raise FailedPrecondition(
                f"load libnftables: {e}", hint="install it (Debian: apt install libnftables1), or use --bridge none"
            ) from e

    def install(
        self, subnet: ipaddress.IPv4Network, endpoints: Iterable[Endpoint], unforwarded: Sequence[str] = ()
    ) -> None:
        """Put the table in place with the published ports of ``endpoints``, atomically replacing what is there."""
        published = "".join(elements(self._table, "add", e.ip, e.bindings) for e in endpoints)
        self._run(table_rules(self._table, self._bridge, subnet, unforwarded) + published, "install")

    def exists(self) -> bool:
        """Whether the table is there."""
        code, _, _ = self._nft.cmd(f"list chain ip {self._table} guard")
        return bool(code == 0)

    def publish(self, endpoint: Endpoint) -> None:
        """Redirect the endpoint's host ports to it."""
        if endpoint.bindings:
            self._run(elements(self._table, "add", endpoint.ip, endpoint.bindings), "add ports to")

    def unpublish(self, endpoint: Endpoint) -> None:
        """End the redirection; connections that exist go on until the container is gone."""
        if endpoint.bindings:
            self._run(elements(self._table, "delete", endpoint.ip, endpoint.bindings), "delete ports from")

    def remove(self) -> None:
        """Delete the table; no error when there is none."""
        self._run(f"add table ip {self._table}\ndelete table ip {self._table}\n", "delete")

    def _run(self, commands: str, what: str) -> None:
        code, _, error = self._nft.cmd(commands)
        if code != 0:
            reason = error.strip().splitlines()[0] if error.strip() else f"code {code}"
            raise KetchError(f"{what} nftables table `{self._table}`: {reason}")
