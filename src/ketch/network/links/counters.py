"""Traffic counters of containers' interfaces, from the containers' own point of view."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING

from ketch.linux.netlink import links
from ketch.linux.netlink.messages import NetlinkRequest, attributes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ketch.linux.netlink.client import Netlink
    from ketch.network.model.record import Endpoint

    Counters = dict[str, dict[str, int]]

# Up to so many interfaces are asked for one by one; then all links of the host at once are cheaper.
_FEW = 8
_OTHER_END = {n: ("tx" if n.startswith("rx") else "rx") + n[2:] for n in links.STATS_NAMES}
_NAMES = tuple(_OTHER_END[n] for n in links.STATS_NAMES)
_STATS = struct.Struct("=8Q")
# Columns of /proc/PID/net/dev (proc_pid_net(5)).
_COLUMNS = {
    "rx_bytes": 0,
    "rx_packets": 1,
    "rx_errors": 2,
    "rx_dropped": 3,
    "tx_bytes": 8,
    "tx_packets": 9,
    "tx_errors": 10,
    "tx_dropped": 11,
}


def read(rtnl: Netlink, endpoints: Iterable[Endpoint], pids: Mapping[str, int]) -> dict[str, Counters]:
    """{container id: {interface: {"rx_bytes": …}}}; ``pids`` has a process of each container.

    What the host's end of a veth receives is what the container has sent, so nobody needs to enter a namespace.
    Other interfaces have no end here: theirs are in /proc.
    """
    found: dict[str, Counters] = {}
    pairs: dict[str, Endpoint] = {}
    for known in endpoints:
        if known.veth:
            pairs[known.veth] = known
        elif counted := of_process(pids[known.container_id], known.ifname):
            found.setdefault(known.container_id, {})[known.ifname] = counted
    for name, stats in _one_by_one(rtnl, pairs) if len(pairs) <= _FEW else _all(rtnl):
        if (known_pair := pairs.get(name)) is not None:
            counted = dict(zip(_NAMES, stats, strict=True))
            found.setdefault(known_pair.container_id, {})[known_pair.ifname] = counted
    return found


def _one_by_one(rtnl: Netlink, names: Iterable[str]) -> Iterable[tuple[str, Sequence[int]]]:
    for name in names:
        with contextlib.suppress(OSError):  # it ended a moment ago
            yield name, links.get_link(rtnl, name, stats=True).stats


def _all(rtnl: Netlink) -> Iterable[tuple[str, Sequence[int]]]:
    """Name and basic counters of every link of this namespace."""
    for body in rtnl.dump(NetlinkRequest(links.RTM_GETLINK, 0, links.ifinfo(), "read the links' counters")):
        found = attributes(body[16:])
        stats = found.get(links.IFLA_STATS64, b"")
        if len(stats) >= _STATS.size:
            yield found[links.IFLA_IFNAME].rstrip(b"\0").decode(errors="replace"), _STATS.unpack_from(stats)


def of_process(pid: int, ifname: str) -> dict[str, int]:
    """Counters of an interface in the network namespace of process ``pid``; empty when either is gone."""
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii", errors="replace") as f:
            for line in f:
                name, colon, rest = line.partition(":")
                if colon and name.strip() == ifname:
                    fields = rest.split()
                    return {key: int(fields[column]) for key, column in _COLUMNS.items()}
    except OSError:
        return {}
    return {}
