"""Choice of subnets and addresses."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgument, ResourceExhausted
from ketch.network import ipam

NET = ipaddress.IPv4Network


def test_the_first_candidate_is_taken_when_nothing_is_used() -> None:
    assert str(ipam.choose_subnet([])) == "172.28.0.1/16"


@pytest.mark.parametrize("used", ["172.28.5.0/24", "172.16.0.0/12", "172.28.0.0/16", "172.28.0.1/32"])
def test_a_candidate_that_overlaps_is_skipped(used: str) -> None:
    chosen = ipam.choose_subnet([NET(used)])
    assert not chosen.network.overlaps(NET(used))


def test_when_everything_is_used_it_says_what_to_do() -> None:
    with pytest.raises(ResourceExhausted) as caught:
        ipam.choose_subnet([NET("0.0.0.0/0")])
    assert "--bip" in (caught.value.hint or "")


def test_candidates_do_not_overlap_each_other() -> None:
    everything = list(ipam.candidates())
    assert len(everything) > 30
    for i, one in enumerate(everything):
        assert not any(one.overlaps(other) for other in everything[i + 1 :])


def test_subnets_as_configured() -> None:
    assert str(ipam.parse_subnet("10.1.0.0/16")) == "10.1.0.1/16"
    assert str(ipam.parse_subnet("10.1.2.3/16")) == "10.1.2.3/16"


@pytest.mark.parametrize("text", ["", "x", "10.0.0.1", "10.0.0.1/30", "10.0.0.255/24", "10.0.0.1/33", "::1/64"])
def test_bad_subnets_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        ipam.parse_subnet(text)


def test_an_address_that_was_given_back_rests_longest() -> None:
    subnet, taken = NET("10.0.0.0/29"), {int(ipaddress.IPv4Address("10.0.0.1"))}
    last, seen = 0, []
    for _ in range(7):
        last = ipam.next_address(subnet, taken, last)
        seen.append(last & 0xFF)
    assert seen == [2, 3, 4, 5, 6, 2, 3]


@given(
    prefix=st.integers(20, 29),
    taken=st.sets(st.integers(0, 4095)),
    last=st.integers(0, 2**32 - 1),
)
def test_an_address_is_free_and_a_hosts(prefix: int, taken: set[int], last: int) -> None:
    subnet = NET((0x0A000000, prefix))
    used = {0x0A000000 + n for n in taken}
    hosts = {int(h) for h in subnet.hosts()}
    if hosts <= used:
        with pytest.raises(ResourceExhausted):
            ipam.next_address(subnet, used, last)
    else:
        assert ipam.next_address(subnet, used, last) in hosts - used


def test_a_hardware_address_is_made_from_the_address() -> None:
    assert ipam.format_mac(ipam.mac_for(int(ipaddress.IPv4Address("172.28.0.2")))) == "02:42:ac:1c:00:02"


@given(st.integers(0, 2**32 - 1))
def test_every_made_hardware_address_is_accepted(address: int) -> None:
    made = ipam.mac_for(address)
    assert ipam.parse_mac(ipam.format_mac(made)) == made


@pytest.mark.parametrize(
    "text", ["", "02:42", "02:42:ac:1c:00:zz", "01:00:5e:00:00:01", "00:00:00:00:00:00", "2:42:ac:1c:0:2"]
)
def test_bad_hardware_addresses_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        ipam.parse_mac(text)


@given(st.text())
def test_parsers_refuse_any_text_with_a_sentence(text: str) -> None:
    for parse in (ipam.parse_mac, ipam.parse_subnet, lambda t: ipam.parse_address(t, NET("10.0.0.0/8"))):
        try:
            parse(text)
        except InvalidArgument as e:
            assert e.message
