"""The names of containers on networks, and the addresses that they stand for.

Readers never wait: a change makes new tables and puts them in place at once.  A name may be shared by several
containers (an alias), and then means all of them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Strings = list[str]


class _Member(NamedTuple):
    names: tuple[str, ...]
    addresses: tuple[str, ...]


class _Net(NamedTuple):
    name: str
    members: dict[str, _Member]  # by container id
    by_name: dict[str, list[str]]  # lower-case name → container ids
    by_address: dict[str, str]  # address → container id


class Directory:
    """Names in networks, for the resolver; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nets: dict[str, _Net] = {}
        self._of: dict[str, tuple[str, ...]] = {}  # container id → ids of its networks
        self._links: dict[tuple[str, str], dict[str, str]] = {}  # by ids of network and container

    def join(
        self, network_id: str, network_name: str, container_id: str, names: Sequence[str], addresses: Sequence[str]
    ) -> None:
        """Set a container's ``names`` on a network (its own first)."""
        with self._lock:
            old = self._nets.get(network_id)
            members = dict(old.members) if old is not None else {}
            members[container_id] = _Member(tuple(names), tuple(addresses))
            self._nets = {**self._nets, network_id: _net(network_name, members)}
            before = self._of.get(container_id, ())
            if network_id not in before:
                self._of = {**self._of, container_id: (*before, network_id)}

    def leave(self, network_id: str, container_id: str) -> None:
        """Remove a container's names on a network; no error when there are none."""
        with self._lock:
            old = self._nets.get(network_id)
            if old is None or container_id not in old.members:
                return
            members = {cid: member for cid, member in old.members.items() if cid != container_id}
            nets = {nid: net for nid, net in self._nets.items() if nid != network_id}
            self._nets = {**nets, network_id: _net(old.name, members)} if members else nets
            rest = tuple(n for n in self._of.get(container_id, ()) if n != network_id)
            others = {cid: ids for cid, ids in self._of.items() if cid != container_id}
            self._of = {**others, container_id: rest} if rest else others
            self._links = {key: links for key, links in self._links.items() if key != (network_id, container_id)}

    def links(self, network_id: str, container_id: str, aliases: Mapping[str, str]) -> None:
        """Set a container's private aliases of others on a network (alias → a name there)."""
        with self._lock:
            rest = {key: links for key, links in self._links.items() if key != (network_id, container_id)}
            own = {alias.lower(): target.lower() for alias, target in aliases.items()}
            self._links = {**rest, (network_id, container_id): own} if own else rest

    def find(self, container_id: str, name: str) -> Strings | None:
        """The addresses of a name as seen by a container; None when unknown on its networks.

        ``name`` is in lower case; it may end in the name of a network.
        """
        nets = self._nets
        found: Strings = []
        for network_id in self._of.get(container_id, ()):
            net = nets.get(network_id)
            if net is None:
                continue
            target = self._links.get((network_id, container_id), {}).get(name)
            ids = (target and net.by_name.get(target)) or net.by_name.get(name)
            if not ids and name.endswith("." + net.name.lower()):
                ids = net.by_name.get(name[: -len(net.name) - 1])
            for cid in ids or ():
                found += net.members[cid].addresses
        return found or None

    def reverse(self, container_id: str, address: str) -> str | None:
        """``name.network`` of the container that has an address on one of the asking container's networks."""
        for network_id in self._of.get(container_id, ()):
            net = self._nets.get(network_id)
            if net is not None and (owner := net.by_address.get(address)) is not None:
                return f"{net.members[owner].names[0]}.{net.name}"
        return None


def _net(name: str, members: dict[str, _Member]) -> _Net:
    by_name: dict[str, list[str]] = {}
    by_address: dict[str, str] = {}
    for container_id, member in members.items():
        for alias in dict.fromkeys(n.lower() for n in member.names):
            by_name.setdefault(alias, []).append(container_id)
        for address in member.addresses:
            by_address[address] = container_id
    return _Net(name, members, by_name, by_address)
