"""Connection tracking (nfnetlink conntrack): removal of UDP flows whose destination has changed.

The kernel decides about address translation with a flow's first packet and keeps to it.  A UDP client that sends on
and on never begins a new flow: without this it would not reach a port that was published after it began, and would
go on sending to the address of a container that is gone.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from typing import TYPE_CHECKING

from ketch.linux.netlink.messages import NetlinkRequest, attr, attributes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ketch.linux.netlink.client import Netlink

_CT_GET = (1 << 8) | 1
_CT_DELETE = (1 << 8) | 2
_NFGENMSG = struct.pack("!BBH", socket.AF_INET, 0, 0)
_TUPLE_ORIG, _TUPLE_REPLY, _ZONE = 1, 2, 18
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_V4_SRC, _V4_DST = 1, 2
_PROTO_NUM, _PROTO_DST_PORT = 1, 3
_NLA_F_NESTED = 0x8000


def forget_udp(ct: Netlink, ports: Collection[int], local: Collection[str], containers: Collection[str]) -> None:
    """Delete the flows to one of the host's ``ports`` that stayed with the host, or that went to one of ``containers``.

    ``ct`` is a netfilter socket, ``local`` are the host's addresses.  The kernel walks its whole table (10 ms).
    """
    gone_to = {ipaddress.IPv4Address(c).packed for c in containers}
    addresses = {ipaddress.IPv4Address(a).packed for a in local}
    for (destination, port), source, body in _flows(ct):
        stayed = port in ports and source == destination and destination in addresses
        if stayed or source in gone_to:
            with contextlib.suppress(FileNotFoundError):  # it ended meanwhile
                ct.run([NetlinkRequest(_CT_DELETE, 0, _NFGENMSG + body, "forget a UDP flow")])


def _flows(ct: Netlink) -> Iterator[tuple[tuple[bytes, int], bytes, bytes]]:
    """(original destination and port, source of the answers, attributes that name the flow) of each UDP flow."""
    for body in ct.dump(NetlinkRequest(_CT_GET, 0, _NFGENMSG, "list tracked flows")):
        found = attributes(body[4:])
        original, reply = attributes(found.get(_TUPLE_ORIG, b"")), attributes(found.get(_TUPLE_REPLY, b""))
        proto = attributes(original.get(_TUPLE_PROTO, b""))
        if proto.get(_PROTO_NUM) != bytes([socket.IPPROTO_UDP]):
            continue
        name = attr(_TUPLE_ORIG | _NLA_F_NESTED, found[_TUPLE_ORIG])
        if _ZONE in found:
            name += attr(_ZONE, found[_ZONE])
        destination = attributes(original[_TUPLE_IP])[_V4_DST]
        source = attributes(attributes(found[_TUPLE_REPLY])[_TUPLE_IP])[_V4_SRC] if reply else b""
        yield (destination, int.from_bytes(proto[_PROTO_DST_PORT], "big")), source, name
