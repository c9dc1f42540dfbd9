"""The daemon's nftables table in the kernel, through libnftables in this process (its text: ``ruleset``)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from ketch.errors import FailedPrecondition, KetchError
from ketch.linux.libnftables import Nftables
from ketch.linux.netlink.client import NETLINK_NETFILTER, Netlink
from ketch.linux.netlink.messages import NetlinkRequest, attributes, text
from ketch.network.firewall.ruleset import (
    CHAINS,
    Forward,
    Segment,
    check_name,
    count_rules,
    forward_elements,
    segment_elements,
    table_text,
)
from ketch.network.links import owner as marks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


_NFPROTO_INET = 1
_GETTABLE = 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE
_NAME, _USERDATA = 1, 6  # NFTA_TABLE_NAME, NFTA_TABLE_USERDATA
_COMMENT = 0  # NFTNL_UDATA_TABLE_COMMENT


class PacketFilter:
    """One table in the network namespace of the thread that makes this object; not thread-safe.

    Every method is one transaction: all of it or nothing (KetchError).
    """

    def __init__(self, table: str, owner: str = "") -> None:
        self._table = check_name(table)
        self._owner = owner
        self._rules = 0
        try:
            self._nft = Nftables()  # here: only a daemon with a network needs the library
        except OSError as e:
            raise FailedPrecondition(
                f"load libnftables: {e}", hint="there are networks, which need it (Debian: apt install libnftables1)"
            ) from e

    def install(
        self,
        segments: Iterable[Segment],
        forwards: Iterable[Forward],
        unforwarded: Sequence[str] = (),
        unforwarded6: Sequence[str] = (),
    ) -> None:
        """Put the table in place, atomically replacing what is there."""
        text = table_text(self._table, unforwarded, unforwarded6, marks.comment(self._owner) if self._owner else "")
        self._rules = count_rules(text)
        text += segment_elements(self._table, "add", segments)
        self._run(text + forward_elements(self._table, "add", forwards), "install")

    def add_segment(self, segment: Segment) -> None:
        """Add a network."""
        self._run(segment_elements(self._table, "add", [segment]), "add a network to")

    def remove_segment(self, segment: Segment) -> None:
        """Remove a network."""
        self._run(segment_elements(self._table, "delete", [segment]), "delete a network from")

    def publish(self, forwards: Sequence[Forward]) -> None:
        """Redirect host ports."""
        self._run(forward_elements(self._table, "add", forwards), "add ports to")

    def unpublish(self, forwards: Sequence[Forward]) -> None:
        """End the redirection; existing connections go on until the container is gone."""
        self._run(forward_elements(self._table, "delete", forwards), "delete ports from")

    def intact(self) -> bool:
        """Whether the table is there with all of its chains and rules."""
        return sum(self._count(chain) for chain in CHAINS) == self._rules

    def _count(self, chain: str) -> int:
        where = {"family": "inet", "table": self._table, "name": chain}
        reply, listed = self._nft.list({"chain": where})
        return sum("rule" in entry for entry in listed) if reply.code == 0 else -len(CHAINS)

    def remove(self) -> None:
        """Delete the table; no error when there is none."""
        self._run(f"add table inet {self._table}\ndelete table inet {self._table}\n", "delete")

    @staticmethod
    def owner_of(table: str) -> str | None:
        """The owner in a table's mark; empty: without a mark; None: no such table."""
        head = struct.pack("=BBH", _NFPROTO_INET, 0, 0)
        with Netlink(protocol=NETLINK_NETFILTER) as nfnl:
            found = nfnl.get(
                NetlinkRequest(
                    _GETTABLE, 0, head + text(_NAME, table), f"look up table `{table}`", tolerated=errno.ENOENT
                )
            )
        if found is None:
            return None
        # A list of type, length, value, a byte each for the first two; the comment ends with a zero byte.
        data = attributes(found[4:]).get(_USERDATA, b"")
        while len(data) > 2:
            kind, length = data[0], data[1]
            if kind == _COMMENT:
                return marks.of_table(data[2 : 2 + length].rstrip(b"\0").decode(errors="replace"))
            data = data[2 + length :]
        return ""

    def _run(self, commands: str, what: str) -> None:
        if not commands:
            return
        reply = self._nft.run(commands)
        if reply.code:
            raise KetchError(f"{what} nftables table `{self._table}`: {reply.reason}")
