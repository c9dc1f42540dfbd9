"""This host's network as the engine uses it: sockets, firewall table, held ports, kernel settings.

The sockets belong to the network namespace of the thread that opens it.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import Conflict, KetchError
from ketch.linux.netlink.client import Netlink
from ketch.network import locks
from ketch.network.firewall import forwarding
from ketch.network.firewall.host_firewall import HostFirewall
from ketch.network.firewall.packet_filter import PacketFilter
from ketch.network.firewall.watch import TableWatch
from ketch.network.live import forwards
from ketch.network.model.record import BRIDGE
from ketch.network.ports.host_ports import HostPorts
from ketch.network.reaper import Reaper

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from ketch.network.firewall.ruleset import Forward, Segment
    from ketch.network.live import LiveNetwork
    from ketch.network.model.record import Endpoint
    from ketch.network.model.state import NetworkState
    from ketch.network.ports.outside import Outside

Strings = list[str]
log = logging.getLogger(__name__)
_NOTE_RA = "accept-ra"
_NOTE4, _NOTE6, _NOTE_TABLE, _NOTE_OTHERS = "unforwarded", "unforwarded6", "table", "host-firewall"


class HostSettings(NamedTuple):
    """The settings of a daemon's networks, for all of its life.

    ``table`` names the firewall table, ``owner`` the data root in marks on what is made (see `owner`).  With
    ``open_firewall`` the host's own firewall is told to let the networks' packets through (see `host_firewall`).
    ``outside`` is where ports are published, if not where the bridges are.  ``mtu`` is that of bridges for which nobody
    names one.  ``direct``: see `live.forwards`.
    """

    table: str = "ketch"
    owner: str = ""
    open_firewall: bool = False
    outside: Outside | None = None
    mtu: int = 1500
    direct: bool = False


class Host:
    """Opened once for a daemon; not thread-safe apart from the watch, which takes ``lock``."""

    def __init__(
        self,
        settings: HostSettings,
        state: NetworkState,
        networks: Mapping[str, LiveNetwork],
        lock: threading.RLock,
    ) -> None:
        self._state = state
        self._table = table = settings.table
        self.owner = settings.owner
        self._networks = networks
        self._lock = lock
        self._open_firewall = settings.open_firewall
        self._direct = settings.direct
        self._adopts = False
        self._filter: PacketFilter | None = None
        self._others: HostFirewall | None = None
        self._watch: TableWatch | None = None
        with contextlib.ExitStack() as opened:
            opened.enter_context(locks.claim_table(table))
            self.rtnl = opened.enter_context(Netlink())
            self.reaper = opened.enter_context(Reaper())
            self.ports = HostPorts(settings.outside)
            opened.callback(self.ports.close)
            self._open = opened.pop_all()

    def close(self) -> None:
        """Close without changing the host; not to be called with the lock held (the watch may be waiting for it)."""
        self.stop_watching()
        self._open.close()

    def stop_watching(self) -> None:
        """Stop watching the table."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    @property
    def own_links(self) -> set[str]:
        """Names of the links that are the networks' own."""
        return {n.record.link for n in self._networks.values() if n.record.link and n.record.driver == BRIDGE}

    # -- firewall ------------------------------------------------------------------------------

    def installed_table(self) -> PacketFilter:
        """The firewall table, installed at the first call: a daemon without networks has none."""
        if self._filter is None:
            made = PacketFilter(self._table, self.owner)
            self._check_table()
            self._filter = made
            self._others = HostFirewall(self._table)
            self._close_others()
            self.install()
            self._watch = TableWatch(self._table, self._restore_table, self._others_changed)
        return self._filter

    def _check_table(self) -> None:
        """Raise Conflict when the table is another data root's, whose containers may need it."""
        whose = PacketFilter.owner_of(self._table)
        if whose is None or self._state.note(_NOTE_TABLE) == self._table or (whose and whose == self.owner):
            return
        if not whose and self._adopts:
            return  # written by a version that did not mark it, for a bridge that we had
        raise Conflict(
            f"use firewall table `{self._table}`: it belongs to another data root, or to another program",
            hint=f"give this daemon its own --bridge, or remove it with `nft delete table inet {self._table}`",
        )

    def take_table(self) -> None:
        """Install the table if there is a network; one of former settings is removed."""
        before = self._state.note(_NOTE_TABLE)
        self._adopts = bool(self._bridged())
        if self._adopts:
            self.installed_table()
        if before in ("", self._table):
            return
        try:
            with locks.claim_table(before):
                if PacketFilter.owner_of(before) in (self.owner, ""):
                    PacketFilter(before).remove()
        except Conflict:  # another daemon has taken the name since
            log.info("network: firewall table `%s` of former settings is another daemon's by now", before)
        self._state.set_note(_NOTE_TABLE, self._table if self._filter is not None else "")

    def install(self) -> Strings:
        """Install the whole table atomically; returns what else was changed."""
        assert self._filter is not None
        bridged = self._bridged()
        everything = [f for n in bridged for e in n.endpoints.values() for f in self._forwards(e)]
        note4, note6 = self._state.note(_NOTE4), self._state.note(_NOTE6)
        self._filter.install(
            [n.segment() for n in bridged],
            everything,
            forwarding.interfaces(note4),
            forwarding.interfaces(note6),
        )
        if self._state.note(_NOTE_TABLE) != self._table:
            self._state.set_note(_NOTE_TABLE, self._table)
        return self._open_others()

    def admit(self, segment: Segment) -> None:
        """Accept the packets of a network."""
        self.installed_table().add_segment(segment)
        self._open_others()

    def dismiss(self, segment: Segment) -> None:
        """Stop accepting the packets of a network."""
        self.installed_table().remove_segment(segment)
        self._open_others(without=segment.bridge)

    def blockers(self) -> Strings:
        """Rules of the host's firewall that may block containers' traffic, a sentence each."""
        self.installed_table()
        assert self._others is not None
        return [] if self._open_firewall else self._others.blockers()

    def _open_others(self, without: str = "") -> Strings:
        if not self._open_firewall or self._others is None:
            return []
        return self._others.open_for([n.record.link for n in self._bridged() if n.record.link != without])

    def _close_others(self) -> None:
        """Remove from the host's firewall the accept rules that an earlier daemon of this data root added."""
        setting = "open" if self._open_firewall else "respect"
        if self._state.note(_NOTE_OTHERS) == "open" and setting != "open" and self._others is not None:
            self._others.open_for([])
        if self._state.note(_NOTE_OTHERS) != setting:
            self._state.set_note(_NOTE_OTHERS, setting)

    def _bridged(self) -> list[LiveNetwork]:
        return [n for n in self._networks.values() if n.record.driver == BRIDGE and n.link is not None]

    def _others_changed(self) -> None:
        with self._lock:
            try:
                self._open_others()
            except KetchError as e:
                log.error("network: %s", e.message)

    def publish(self, made: Endpoint) -> None:
        """Redirect the endpoint's host ports to it."""
        if not made.bindings:
            return
        try:
            self.installed_table().publish(self._forwards(made))
        except KetchError:
            # The table was removed a moment ago (see `watch`): put it back, this endpoint included.
            self.install()
        self.ports.relay(made)
        self._forget_flows(made)

    def unpublish(self, gone: Endpoint) -> None:
        """End the redirection; existing connections go on until the container is gone."""
        if gone.masquerade is not None and self._filter is not None:
            self.install()  # its address may be an exception of its network's
        if not gone.bindings:
            return
        self.ports.stop_relay(gone.bindings)
        try:
            self.installed_table().unpublish(self._forwards(gone))
        except KetchError:
            self.install()
        self._forget_flows(gone)

    def remove_table(self) -> None:
        """Remove the firewall table."""
        self.stop_watching()
        if self._filter is not None:
            if self._open_firewall and self._others is not None:
                self._others.open_for([])
            self._filter.remove()
            self._filter = None

    def _forwards(self, endpoint: Endpoint) -> list[Forward]:
        return forwards(endpoint, self._networks[endpoint.network_id].record, direct=self._direct)

    def _restore_table(self) -> None:
        with self._lock:
            if self._filter is None or self._filter.intact():
                return
            log.warning("network: nftables table `%s` was changed by another program; putting it back", self._table)
            try:
                self.install()
            except KetchError as e:
                log.error("network: %s", e.message)

    def _forget_flows(self, changed: Endpoint) -> None:
        udp = {b.host_port for b in changed.bindings if b.proto == "udp"}
        if udp and changed.ip:
            self.reaper.forget_udp(udp, changed.ip)

    # -- forwarding ----------------------------------------------------------------------------

    def enable_forwarding(self, *, ipv6: bool) -> None:
        """Turn packet forwarding on, recording the interfaces that packets must not be forwarded for."""
        if ipv6 and (listening := forwarding.keep_listening(self.rtnl, self._state.note(_NOTE_RA), self.own_links)):
            self._state.set_note(_NOTE_RA, listening)
        turn, key = (forwarding.enable6, _NOTE6) if ipv6 else (forwarding.enable, _NOTE4)
        before = self._state.note(key)
        note = turn(self.rtnl, before, self.own_links)
        if note != before:
            self._state.set_note(key, note)
            if self._filter is not None:
                self.install()

    def restore_forwarding(self, own: set[str]) -> None:
        """Turn packet forwarding off again where that is safe."""
        note4, note6, listening = (self._state.note(key) for key in (_NOTE4, _NOTE6, _NOTE_RA))
        forwarding.restore(self.rtnl, note4, note6, listening, own)
