"""Choice of subnets and addresses."""

from __future__ import annotations

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgument, PermissionDenied, ResourceExhausted
from ketch.network.model import ipam
from ketch.network.model.record import Pool

NET = ipaddress.IPv4Network


def test_the_first_candidate_is_taken_when_nothing_is_used() -> None:
    assert str(ipam.choose_subnet([])) == "172.17.0.0/16"


@pytest.mark.parametrize("used", ["172.17.5.0/24", "172.16.0.0/12", "172.17.0.0/16", "172.17.0.1/32"])
def test_a_candidate_that_overlaps_is_skipped(used: str) -> None:
    chosen = ipam.choose_subnet([NET(used)])
    assert not chosen.overlaps(NET(used))


def test_when_everything_is_used_it_says_what_to_do() -> None:
    with pytest.raises(ResourceExhausted) as caught:
        ipam.choose_subnet([NET("0.0.0.0/0")])
    assert "--bip" in (caught.value.hint or "")


def test_candidates_do_not_overlap_each_other() -> None:
    everything = list(itertools.islice(ipam.candidates(ipam.DEFAULT_BASES), 200))
    assert len(everything) > 30
    for i, one in enumerate(everything):
        assert not any(one.overlaps(other) for other in everything[i + 1 :])


def test_subnets_as_configured() -> None:
    assert str(ipam.parse_subnet("10.1.0.0/16")) == "10.1.0.1/16"
    assert str(ipam.parse_subnet("10.1.2.3/16")) == "10.1.2.3/16"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "10.0.0.1",
        "10.0.0.1/30",
        "10.0.0.255/24",
        "10.0.0.1/33",
        "::1/64",
        "0.0.0.0/0",
        "10.0.0.1/7",
        "127.0.0.1/8",
        "224.0.0.1/16",
    ],
)
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
    assert ipam.format_mac(ipam.mac_for("172.28.0.2")) == "02:42:ac:1c:00:02"


@given(st.ip_addresses())
def test_every_made_hardware_address_is_accepted(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    made = ipam.mac_for(str(address))
    assert ipam.parse_mac(ipam.format_mac(made)) == made


@pytest.mark.parametrize(
    "text", ["", "02:42", "02:42:ac:1c:00:zz", "01:00:5e:00:00:01", "00:00:00:00:00:00", "2:42:ac:1c:0:2"]
)
def test_bad_hardware_addresses_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        ipam.parse_mac(text)


def test_ipv6_subnets_are_the_engines_own() -> None:
    one, other = ipam.ula_base("one"), ipam.ula_base("other")
    assert one != other
    assert str(ipam.choose_subnet([], [one], 6)) == one.base.replace("/48", "/64")
    assert ipaddress.ip_network(one.base).subnet_of(ipaddress.ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (Pool(subnet="10.0.0.5/24"), "invalid subnet 10.0.0.5/24: it should be 10.0.0.0/24"),
        (Pool(subnet="10.0.0.0"), "invalid subnet 10.0.0.0: invalid CIDR block notation"),
        (Pool(subnet="10.0.0.0/24", gateway="10.0.1.1"), "invalid gateway 10.0.1.1: parent subnet 10.0.0.0/24 doesn't"),
        (Pool(subnet="10.0.0.0/24", gateway="fd00::1"), "invalid gateway fd00::1: parent subnet is an IPv4 block"),
        (Pool(subnet="10.0.0.0/24", ip_range="10.0.0.0/16"), "CIDR block is bigger than its parent subnet"),
        (Pool(subnet="10.0.0.0/24", ip_range="10.0.1.0/25"), "doesn't contain ip-range"),
        (Pool(subnet="10.0.0.0/24", aux={"me": "x"}), "invalid auxiliary address me: invalid address"),
    ],
)
def test_invalid_subnets_in_dockers_words(pool: Pool, said: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid network config") as caught:
        ipam.check_pools([pool], ipv6=False)
    assert said in caught.value.message


def test_an_allocator_keeps_to_its_range_and_spares_what_is_reserved() -> None:
    pool = Pool(subnet="10.0.0.0/24", gateway="10.0.0.128", ip_range="10.0.0.128/30", aux={"me": "10.0.0.130"})
    addresses = ipam.Allocator(pool)
    assert [addresses.take(), addresses.take()] == ["10.0.0.129", "10.0.0.131"]
    with pytest.raises(ResourceExhausted):
        addresses.take()
    assert addresses.take("10.0.0.7") == "10.0.0.7"
    with pytest.raises(PermissionDenied, match="Address already in use"):
        addresses.take("10.0.0.7")
    addresses.give_back("10.0.0.129")
    assert addresses.take() == "10.0.0.129"


@given(st.text())
def test_parsers_refuse_any_text_with_a_sentence(text: str) -> None:
    for parse in (ipam.parse_mac, ipam.parse_subnet, lambda t: ipam.parse_address(t, NET("10.0.0.0/8"))):
        try:
            parse(text)
        except InvalidArgument as e:
            assert e.message
