"""Text of the firewall's commands, netlink messages, and what is refused before it gets there."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgument
from ketch.network import firewall, forwarding, netlink
from ketch.network.endpoint import Binding, Endpoint

SUBNET = ipaddress.IPv4Network("172.28.0.0/16")


def test_ports_become_elements_of_two_maps() -> None:
    bindings = [Binding("tcp", 80, "0.0.0.0", 8080), Binding("udp", 53, "127.0.0.1", 5353)]
    assert firewall.elements("ketch", "add", "172.28.0.2", bindings) == (
        "add element ip ketch published { tcp . 8080 : 172.28.0.2 . 80 }\n"
        "add element ip ketch published_on { 127.0.0.1 . udp . 5353 : 172.28.0.2 . 53 }\n"
    )
    assert firewall.elements("ketch", "delete", "172.28.0.2", bindings) == (
        "delete element ip ketch published { tcp . 8080 }\n"
        "delete element ip ketch published_on { 127.0.0.1 . udp . 5353 }\n"
    )


def test_many_ports_are_cut_into_several_commands() -> None:
    text = firewall.elements("t", "add", "10.0.0.2", [Binding("tcp", p, "0.0.0.0", p) for p in range(1, 1202)])
    assert len(text.splitlines()) == 3
    assert text.count(" : ") == 1201


def test_no_ports_no_commands() -> None:
    assert firewall.elements("t", "add", "10.0.0.2", []) == ""


def test_interfaces_that_did_not_forward_stay_apart() -> None:
    rule = 'iifname { "eth0", "eth1" } oifname { "eth0", "eth1" } drop'
    assert rule in firewall.table_rules("ketch", "ketch0", SUBNET, ["eth0", "eth1"])
    assert "eth0" not in firewall.table_rules("ketch", "ketch0", SUBNET)


@pytest.mark.parametrize("name", ["", "0x", "a b", 'a"', "a;", "a\n", "ä", "-a"])
def test_names_that_would_change_the_ruleset_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        firewall.check_name(name)


def test_the_note_about_forwarding() -> None:
    assert forwarding.interfaces("") == []
    assert forwarding.interfaces("boot:") == []
    assert forwarding.interfaces("boot:eth0,eth1") == ["eth0", "eth1"]


def test_ports_in_dockers_form() -> None:
    bindings = (
        Binding("tcp", 80, "0.0.0.0", 8080),
        Binding("tcp", 80, "127.0.0.1", 81),
        Binding("udp", 53, "0.0.0.0", 53),
    )
    made = Endpoint("c", "e", "n", "10.0.0.2", 24, "10.0.0.1", "02:42:0a:00:00:02", "veth0", bindings)
    assert made.ports == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "81"}],
        "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "53"}],
    }


@given(st.dictionaries(st.integers(1, 200), st.binary(max_size=40)))
def test_attributes_survive_packing(values: dict[int, bytes]) -> None:
    packed = b"".join(netlink.attr(kind, value) for kind, value in values.items())
    assert len(packed) % 4 == 0
    assert netlink.attributes(packed) == values


def test_nested_attributes() -> None:
    inner = netlink.attributes(netlink.attributes(netlink.nest(18, netlink.text(1, "veth")))[18])
    assert inner == {1: b"veth\0"}


@given(st.binary(max_size=200))
def test_garbage_from_a_socket_ends_the_parsing(data: bytes) -> None:
    netlink.attributes(data)


def test_numbers_are_in_host_order() -> None:
    assert netlink.u32(4, 1500) == struct.pack("=HHI", 8, 4, 1500)
    assert netlink.u16(4, 7) == struct.pack("=HHHxx", 6, 4, 7)
    assert netlink.u8(4, 7) == struct.pack("=HHBxxx", 5, 4, 7)
