"""Text of the firewall's commands, netlink messages, and what is refused before it gets there."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgument
from ketch.linux.netlink import messages
from ketch.network.firewall import forwarding, ruleset
from ketch.network.firewall.ruleset import Forward, Segment
from ketch.network.model.record import Binding, Endpoint


def test_ports_become_elements_of_maps() -> None:
    forwards = [
        Forward("tcp", "0.0.0.0", 8080, "172.28.0.2", 80),
        Forward("udp", "127.0.0.1", 5353, "172.28.0.2", 53),
        Forward("tcp", "::", 8080, "fd00::2", 80),
        Forward("tcp", "0.0.0.0", 8081, "172.29.0.2", 80, routed=True),
    ]
    assert ruleset.forward_elements("ketch", "add", forwards) == (
        "add element inet ketch published4 { tcp . 8080 : 172.28.0.2 . 80 }\n"
        "add element inet ketch published4_on { 127.0.0.1 . udp . 5353 : 172.28.0.2 . 53 }\n"
        "add element inet ketch published6 { tcp . 8080 : fd00::2 . 80 }\n"
        "add element inet ketch routed4 { 172.29.0.2 . tcp . 80 }\n"
    )
    assert ruleset.forward_elements("ketch", "delete", forwards[:2]) == (
        "delete element inet ketch published4 { tcp . 8080 }\n"
        "delete element inet ketch published4_on { 127.0.0.1 . udp . 5353 }\n"
    )


def test_networks_become_elements_of_sets() -> None:
    segment = Segment("br-1", ("172.30.0.0/16", "fd00:1::/64"), internal=True, snat=("192.0.2.7",))
    assert ruleset.segment_elements("t", "add", [segment]) == (
        'add element inet t bridges { "br-1" }\n'
        'add element inet t neighbours { "br-1" . "br-1" }\n'
        'add element inet t internal { "br-1" }\n'
        "add element inet t subnets4 { 172.30.0.0/16 }\n"
        "add element inet t sources4 { 172.30.0.0/16 : 192.0.2.7 }\n"
        "add element inet t subnets6 { fd00:1::/64 }\n"
        "add element inet t masqueraded6 { fd00:1::/64 }\n"
    )
    assert "sources4 { 172.30.0.0/16 }" in ruleset.segment_elements("t", "delete", [segment])


def test_many_ports_are_cut_into_several_commands() -> None:
    text = ruleset.forward_elements("t", "add", [Forward("tcp", "0.0.0.0", p, "10.0.0.2", p) for p in range(1, 1202)])
    assert len(text.splitlines()) == 3
    assert text.count(" : ") == 1201


def test_no_ports_no_commands() -> None:
    assert ruleset.forward_elements("t", "add", []) == ""


def test_interfaces_that_did_not_forward_stay_apart() -> None:
    rule = 'meta nfproto ipv4 iifname { "eth0", "eth1" } oifname { "eth0", "eth1" } drop'
    assert rule in ruleset.table_text("ketch", ["eth0", "eth1"])
    assert rule.replace("ipv4", "ipv6") in ruleset.table_text("ketch", [], ["eth0", "eth1"])
    assert "eth0" not in ruleset.table_text("ketch")


@pytest.mark.parametrize("name", ["", "0x", "a b", 'a"', "a;", "a\n", "ä", "-a"])
def test_names_that_would_change_the_ruleset_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        ruleset.check_name(name)


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
    made = Endpoint(container_id="c", network_id="n", endpoint_id="e", bindings=bindings)
    assert made.ports == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "81"}],
        "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "53"}],
    }


@given(st.dictionaries(st.integers(1, 200), st.binary(max_size=40)))
def test_attributes_survive_packing(values: dict[int, bytes]) -> None:
    packed = b"".join(messages.attr(kind, value) for kind, value in values.items())
    assert len(packed) % 4 == 0
    assert messages.attributes(packed) == values


def test_nested_attributes() -> None:
    inner = messages.attributes(messages.attributes(messages.nest(18, messages.text(1, "veth")))[18])
    assert inner == {1: b"veth\0"}


@given(st.binary(max_size=200))
def test_garbage_from_a_socket_ends_the_parsing(data: bytes) -> None:
    messages.attributes(data)


def test_numbers_are_in_host_order() -> None:
    assert messages.u32(4, 1500) == struct.pack("=HHI", 8, 4, 1500)
    assert messages.u16(4, 7) == struct.pack("=HHHxx", 6, 4, 7)
    assert messages.u8(4, 7) == struct.pack("=HHBxxx", 5, 4, 7)
