"""The host's own firewall: other nftables tables with chains for forwarded packets.

An ``accept`` in our table is not the last word: a packet passes every table, and a ``drop`` anywhere is final.  So a
host whose firewall drops what it does not know (ufw, firewalld, a ruleset with ``policy drop``) cuts containers
off, and by default that is respected: `blockers` says so and nothing of others is touched.  With
``--host-firewall open`` two rules for each bridge are put at the front of those chains, marked with a comment, and
taken away again.  They are written so that ``iptables-nft`` still understands its tables.  Our own table goes on
deciding which of the packets may really pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ketch.errors import KetchError
from ketch.linux.libnftables import Nftables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FAMILIES = ("ip", "ip6", "inet")
_FINAL = ("drop", "reject")
_NftObject = dict[str, Any]  # as libnftables-json(5) has it
Strings = list[str]


class Chain(NamedTuple):
    """A chain that sees forwarded packets."""

    family: str
    table: str
    name: str
    policy: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


class HostFirewall:
    """The tables of this network namespace apart from ``own`` and those of other daemons; not thread-safe."""

    def __init__(self, own: str) -> None:
        self._nft = Nftables()
        self._own = own
        self._comment = f"let through by {own}"

    def blockers(self) -> Strings:
        """The chains that drop packets by default, a sentence each."""
        found = []
        for chain in self._chains():
            rules = self._rules(chain)
            verdict = chain.policy if chain.policy == "drop" else _last_word(rules)
            if verdict:
                found.append(
                    f"the host's firewall ends its forward chain `{chain}` with {verdict}: packets of containers that "
                    "it does not accept go nowhere"
                )
        return found

    def open_for(self, bridges: Iterable[str]) -> Strings:
        """Make every foreign forward chain accept packets of exactly these bridges of ours.

        Returns what was done; KetchError.
        """
        wanted = {(key, bridge) for bridge in bridges for key in ("iifname", "oifname")}
        commands, done = [], []
        for chain in self._chains():
            present = {match: rule["handle"] for rule in self._rules(chain) if (match := self._ours(rule))}
            gone = [f"delete rule {chain} handle {handle}" for match, handle in present.items() if match not in wanted]
            missing = [
                f'insert rule {chain} {key} "{bridge}" counter accept comment "{self._comment}"'
                for key, bridge in sorted(wanted - present.keys())
            ]
            commands += gone + missing
            if missing:
                done.append(f"opened the host's firewall chain `{chain}`")
        if commands:
            reply = self._nft.run("\n".join(commands))
            if reply.code:
                raise KetchError(f"open the host's firewall for containers: {reply.reason}")
        return done

    def _chains(self) -> Iterator[Chain]:
        for entry in self._list({"chains": None}):
            chain = entry.get("chain")
            if chain is None or chain.get("hook") != "forward" or chain.get("type") != "filter":
                continue
            if chain["family"] in _FAMILIES and not _is_a_daemons(chain["table"]):
                yield Chain(chain["family"], chain["table"], chain["name"], chain.get("policy", "accept"))

    def _rules(self, chain: Chain) -> list[_NftObject]:
        where = {"family": chain.family, "table": chain.table, "name": chain.name}
        return [entry["rule"] for entry in self._list({"chain": where}) if "rule" in entry]

    def _list(self, what: _NftObject) -> list[_NftObject]:
        reply, listed = self._nft.list(what)
        if reply.code:
            raise KetchError(f"read the host's firewall: {reply.reason}")
        return listed

    def _ours(self, rule: _NftObject) -> tuple[str, str] | None:
        """The interface that a rule of ours accepts."""
        if rule.get("comment") != self._comment:
            return None
        match = rule["expr"][0]["match"]
        return match["left"]["meta"]["key"], match["right"]


def _is_a_daemons(table: str) -> bool:
    return table == "ketch" or table.startswith("ketch-")


def _last_word(rules: list[_NftObject]) -> str:
    """``drop`` or ``reject`` when the last rule does that unconditionally."""
    if not rules:
        return ""
    words = [word for e in rules[-1]["expr"] if isinstance(e, dict) for word in e if word not in ("counter", "log")]
    return str(words[0]) if len(words) == 1 and words[0] in _FINAL else ""
