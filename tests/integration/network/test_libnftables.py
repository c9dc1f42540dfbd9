"""The binding to libnftables, against the kernel."""

from __future__ import annotations

import pytest

from ketch.linux.libnftables import Nftables

TABLE = "kt-binding"


@pytest.fixture
def nft():
    """A table with one chain, which goes with the test."""
    one = Nftables()
    assert one.run(f'add table inet {TABLE}; add chain inet {TABLE} c {{ comment "naïve"; }}') == (0, "", "")
    yield one
    assert one.run(f"delete table inet {TABLE}").code == 0


def test_what_was_made_is_listed(nft):
    reply, listed = nft.list({"chain": {"family": "inet", "table": TABLE, "name": "c"}})
    assert reply.code == 0
    assert [entry["chain"]["name"] for entry in listed if "chain" in entry] == ["c"]
    assert "naïve" in nft.run(f"list table inet {TABLE}").output  # text again, after JSON


def test_a_transaction_is_whole_or_nothing(nft):
    reply = nft.run(f"add chain inet {TABLE} d; add rule inet {TABLE} none accept")
    assert (reply.code != 0, "No such file" in reply.reason) == (True, True), reply
    assert nft.list({"chain": {"family": "inet", "table": TABLE, "name": "d"}})[1] == []


def test_what_is_no_command(nft):
    assert "syntax error" in nft.run("nonsense").reason
