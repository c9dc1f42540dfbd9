"""DNS messages and the directory of names: pure logic."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.network.dns import message
from ketch.network.dns.directory import Directory

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63)
NAME = st.lists(LABEL, min_size=1, max_size=3).map(".".join)


def ask(name: str, number: int = 1, kind: int = message.A, extra: bytes = b"") -> bytes:
    header = struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 1 if extra else 0)
    return header + message.write_name(name) + struct.pack("!HH", kind, 1) + extra


@given(NAME, st.integers(0, 65535), st.sampled_from([message.A, message.AAAA, message.PTR]))
def test_a_question_is_read_as_it_was_written(name: str, number: int, kind: int) -> None:
    query = message.parse(ask(name, number, kind))
    assert (query.id, query.name, query.kind, query.klass, query.room) == (number, name, kind, 1, 512)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_question_or_malformed(data: bytes) -> None:
    with contextlib.suppress(message.Malformed):
        message.parse(data)


@given(NAME, st.integers(0, 80))
def test_a_question_that_is_cut_off_is_malformed(name: str, kept: int) -> None:
    data = ask(name)
    if kept < len(data):
        with pytest.raises(message.Malformed):
            message.parse(data[:kept])


@given(st.lists(st.ip_addresses(v=4).map(str), max_size=100))
def test_an_answer_fits_or_says_that_it_does_not(addresses: list[str]) -> None:
    data = ask("many")
    query = message.parse(data)
    records = [message.address(a) for a in addresses]
    short, whole = message.answer(data, query, records, room=512), message.answer(data, query, records)
    assert len(short) <= 512
    assert bool(short[2] & 0x02) == (len(whole) > 512)
    assert struct.unpack("!H", whole[6:8])[0] == len(addresses)
    assert message.answers(whole, data, query.end, 1) and not message.answers(whole, data, query.end, 2)


def test_room_by_edns() -> None:
    option = b"\0" + struct.pack("!HHIH", message.OPT, 1232, 0, 0)
    assert message.parse(ask("a", extra=option)).room == 1232
    small = b"\0" + struct.pack("!HHIH", message.OPT, 100, 0, 0)
    assert message.parse(ask("a", extra=small)).room == 512


@given(st.ip_addresses())
def test_addresses_backwards(address: object) -> None:
    name = address.reverse_pointer  # type: ignore[attr-defined]
    assert message.reverse_address(name) == str(address)


@pytest.mark.parametrize("name", ["", "example.test", "1.2.3.in-addr.arpa", "x.0.0.127.in-addr.arpa", "1.ip6.arpa"])
def test_other_names_are_no_addresses(name: str) -> None:
    assert message.reverse_address(name) is None


def test_names_are_of_a_network() -> None:
    names = Directory()
    names.join("n1", "back", "c1", ["one", "web"], ["10.0.0.1", "fd00::1"])
    names.join("n1", "back", "c2", ["Two", "web"], ["10.0.0.2"])
    names.join("n2", "front", "c3", ["three"], ["10.1.0.3"])
    assert names.find("c1", "two") == ["10.0.0.2"]
    assert names.find("c2", "web") == ["10.0.0.1", "fd00::1", "10.0.0.2"]
    assert names.find("c1", "two.back") == ["10.0.0.2"]
    assert names.find("c1", "three") is None and names.find("c3", "one") is None
    assert names.reverse("c2", "10.0.0.1") == "one.back" and names.reverse("c3", "10.0.0.1") is None


def test_a_link_is_a_name_for_one_container_only() -> None:
    names = Directory()
    for i in (1, 2, 3):
        names.join("n1", "back", f"c{i}", [f"box{i}"], [f"10.0.0.{i}"])
    names.links("n1", "c1", {"Database": "BOX2"})
    assert names.find("c1", "database") == ["10.0.0.2"]
    assert names.find("c3", "database") is None


@given(st.lists(st.tuples(st.sampled_from("jl"), st.sampled_from(["n1", "n2"]), st.sampled_from(["c1", "c2", "c3"]))))
def test_the_directory_is_what_joined_and_did_not_leave(steps: list[tuple[str, str, str]]) -> None:
    names, members = Directory(), set()
    for step, network, container in steps:
        if step == "j":
            names.join(network, network, container, [container], [f"10.0.{network[1]}.{container[1]}"])
            members.add((network, container))
        else:
            names.leave(network, container)
            members.discard((network, container))
    for asker in ("c1", "c2", "c3"):
        for other in ("c1", "c2", "c3"):
            shared = {n for n, c in members if c == asker} & {n for n, c in members if c == other}
            assert set(names.find(asker, other) or []) == {f"10.0.{n[1]}.{other[1]}" for n in shared}
