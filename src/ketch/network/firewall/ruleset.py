"""The text of the one nftables table of a daemon: its chains, sets and maps, and their elements.

    prerouting/raw   guard        what must never come from a container: the host's own loopback addresses
    prerouting/dstnat             a packet to a published port → the container      (from outside, from containers)
    output/dstnat                 the same for the host's own programs, loopback included
    forward          forward      into a bridge: only answers, neighbours and published ports
    postrouting      postrouting  outgoing connections get the host's address, as do those through the loopback

Whatever belongs to one network or one port is an element of a set or map: a packet's way does not get longer with
their number, and a change is one small transaction.  ``accept`` ends the evaluation of *this* table's chain only: the
host's own firewall sees every forwarded packet as well and its ``drop`` is final (``ct original proto-dst`` is the
published port there).  Nothing outside this table is ever read or changed.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.errors import InvalidArgument
from ketch.network.model.record import NAT, ROUTED, UNPROTECTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ANY = ("0.0.0.0", "::")
CHAINS = ("publish4", "publish6", "guard", "prerouting", "output", "forward", "postrouting")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_BATCH = 500


class Segment(Struct, frozen=True):
    """One bridge network as the firewall sees it; ``subnets`` in CIDR form, both families.

    ``snat`` are source addresses to use instead of the outgoing interface's, at most one a family.  ``modes`` are how
    the world meets it, for IPv4 and IPv6: ``nat``; ``nat-unprotected`` (who can route to a container reaches all its
    ports); ``routed`` (no translation: published ports are reached at the container's own address); ``isolated``.
    ``exceptions`` are addresses inside for which the opposite of ``masquerade`` holds.
    """

    bridge: str
    subnets: tuple[str, ...]
    internal: bool = False
    masquerade: bool = True
    snat: tuple[str, ...] = ()
    modes: tuple[str, str] = (NAT, NAT)
    exceptions: tuple[str, ...] = ()


class Forward(Struct, frozen=True):
    """One published port of one family; ``host_ip`` 0.0.0.0 or :: is every address of the host.

    ``routed`` ports are only let through, not translated.
    """

    proto: str
    host_ip: str
    host_port: int
    ip: str
    port: int
    routed: bool = False


def check_name(name: str) -> str:
    """A name that can stand in a ruleset as it is (InvalidArgument otherwise)."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"invalid network name `{name}`", hint="use letters, digits, `_`, `.` and `-`")
    return name


def table_text(table: str, unforwarded: Sequence[str] = (), unforwarded6: Sequence[str] = (), comment: str = "") -> str:
    """The empty table, replacing an older one in the same transaction.

    ``unforwarded`` are interfaces between which the host did not forward before the engine turned forwarding on.
    """
    family = "\n".join(_family_sets(v) for v in (4, 6))
    return f"""
add table inet {table}
delete table inet {table}
table inet {table} {{
  {f'comment "{comment}"' if comment else ""}
  set bridges {{ type ifname; }}
  set neighbours {{ type ifname . ifname; }}
  set internal {{ type ifname; }}
  set open4 {{ type ifname; }}
  set open6 {{ type ifname; }}
{family}
  chain publish4 {{
    meta l4proto {{ tcp, udp, sctp }} dnat ip to ip daddr . meta l4proto . th dport map @published4_on
    fib daddr type local meta l4proto {{ tcp, udp, sctp }} dnat ip to meta l4proto . th dport map @published4
  }}
  chain publish6 {{
    meta l4proto {{ tcp, udp, sctp }} dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6_on
    fib daddr type local meta l4proto {{ tcp, udp, sctp }} dnat ip6 to meta l4proto . th dport map @published6
  }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip saddr 127.0.0.0/8 drop
    iifname @bridges ip daddr 127.0.0.0/8 drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr != 127.0.0.0/8 jump publish4
    meta nfproto ipv6 jump publish6
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    meta nfproto ipv4 jump publish4
    ip6 daddr != ::1 jump publish6
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname @bridges ct state established,related accept
    iifname . oifname @neighbours accept
    iifname @internal drop
    oifname @internal drop
    meta nfproto ipv4 oifname @open4 accept
    meta nfproto ipv6 oifname @open6 accept
    oifname @bridges ct status dnat accept
    ip daddr . meta l4proto . th dport @routed4 accept
    ip6 daddr . meta l4proto . th dport @routed6 accept
    oifname @bridges drop
    {_unforwarded("ipv4", unforwarded)}
    {_unforwarded("ipv6", unforwarded6)}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    ip saddr @subnets4 oifname @bridges ct status dnat masquerade
    ip6 saddr @subnets6 oifname @bridges ct status dnat masquerade
    oifname != @bridges snat ip to ip saddr map @sources4
    oifname != @bridges snat ip6 to ip6 saddr map @sources6
    ip saddr @unmasqueraded4 accept
    ip6 saddr @unmasqueraded6 accept
    ip saddr @masqueraded4 oifname != @bridges masquerade
    ip6 saddr @masqueraded6 oifname != @bridges masquerade
  }}
}}
"""


def count_rules(text: str) -> int:
    """The number of rules in the chains of a `table_text`."""
    chains = text[text.index("  chain ") :].splitlines()
    return sum(
        1 for line in chains if line.startswith("    ") and line.strip() and not line.strip().startswith("type ")
    )


def _family_sets(version: int) -> str:
    address = f"ipv{version}_addr"
    return f"""\
  map published{version} {{ type inet_proto . inet_service : {address} . inet_service; }}
  map published{version}_on {{ type {address} . inet_proto . inet_service : {address} . inet_service; }}
  set routed{version} {{ type {address} . inet_proto . inet_service; }}
  set subnets{version} {{ type {address}; flags interval; }}
  set masqueraded{version} {{ type {address}; flags interval; }}
  set unmasqueraded{version} {{ type {address}; }}
  map sources{version} {{ type {address} : {address}; flags interval; }}"""


def _unforwarded(family: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    listed = ", ".join(f'"{name}"' for name in names)
    return f"meta nfproto {family} iifname {{ {listed} }} oifname {{ {listed} }} drop"


def segment_elements(table: str, verb: str, segments: Iterable[Segment]) -> str:
    """``add`` or ``delete`` the elements of networks."""
    sets: dict[str, list[str]] = {}

    def put(name: str, element: str) -> None:
        sets.setdefault(name, []).append(element)

    for s in segments:
        bridge = f'"{check_name(s.bridge)}"'
        put("bridges", bridge)
        put("neighbours", f"{bridge} . {bridge}")
        if s.internal:
            put("internal", bridge)
        for version, mode in zip((4, 6), s.modes, strict=True):
            if mode == UNPROTECTED:
                put(f"open{version}", bridge)
        for subnet in s.subnets:
            version = ipaddress.ip_network(subnet).version
            put(f"subnets{version}", subnet)
            source = next((a for a in s.snat if ipaddress.ip_address(a).version == version), "")
            translated = s.modes[version == 6] != ROUTED
            if source and translated:
                put(f"sources{version}", f"{subnet} : {source}" if verb == "add" else subnet)
            elif s.masquerade and translated:
                put(f"masqueraded{version}", subnet)
        for address in s.exceptions:
            put(f"{'un' if s.masquerade else ''}masqueraded{6 if ':' in address else 4}", address)
    return "".join(_commands(table, verb, sets))


def forward_elements(table: str, verb: str, forwards: Iterable[Forward]) -> str:
    """``add`` or ``delete`` the elements of published ports."""
    sets: dict[str, list[str]] = {}
    for f in forwards:
        version = 6 if ":" in f.ip else 4
        target = f" : {f.ip} . {f.port}" if verb == "add" else ""
        if f.routed:
            sets.setdefault(f"routed{version}", []).append(f"{f.ip} . {f.proto} . {f.port}")
        elif f.host_ip in ANY:
            sets.setdefault(f"published{version}", []).append(f"{f.proto} . {f.host_port}{target}")
        else:
            sets.setdefault(f"published{version}_on", []).append(f"{f.host_ip} . {f.proto} . {f.host_port}{target}")
    return "".join(_commands(table, verb, sets))


def _commands(table: str, verb: str, sets: dict[str, list[str]]) -> Iterator[str]:
    for name, items in sets.items():
        for i in range(0, len(items), _BATCH):
            yield f"{verb} element inet {table} {name} {{ {', '.join(items[i : i + _BATCH])} }}\n"
