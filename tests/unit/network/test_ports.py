"""Parsing of published ports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgument, KetchError
from ketch.network.ports import requests
from ketch.network.ports.requests import PortRequest

PORT = st.integers(1, 65535)


def test_a_binding_is_published() -> None:
    wanted = requests.requests({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}, None, False)
    assert wanted == [PortRequest("tcp", 80, "127.0.0.1", 8080, 8080)]


def test_protocol_defaults_to_tcp_and_address_to_all() -> None:
    assert requests.requests({"80": [{"HostPort": "81"}]}, {}, False) == [PortRequest("tcp", 80, "", 81, 81)]


@pytest.mark.parametrize("host_port", ["", "0"])
def test_any_free_port(host_port: str) -> None:
    assert requests.requests({"53/udp": [{"HostIp": "", "HostPort": host_port}]}, None, False) == [
        PortRequest("udp", 53)
    ]


def test_exposed_ports_need_publish_all() -> None:
    exposed: dict[str, object] = {"80/tcp": {}, "53/udp": {}}
    assert requests.requests(None, exposed, False) == []
    assert requests.requests(None, exposed, True) == [PortRequest("tcp", 80), PortRequest("udp", 53)]
    bound = requests.requests({"80/tcp": [{"HostPort": "8080"}]}, exposed, True)
    assert bound == [PortRequest("tcp", 80, "", 8080, 8080), PortRequest("udp", 53)]


def test_an_empty_list_of_bindings_only_exposes() -> None:
    assert requests.requests({"80/tcp": [], "81/tcp": None}, None, False) == []
    assert requests.requests({"80/tcp": []}, None, True) == [PortRequest("tcp", 80)]


def test_a_host_range_for_one_port_is_kept_a_range() -> None:
    assert requests.requests({"80/tcp": [{"HostPort": "8000-8010"}]}, None, False) == [
        PortRequest("tcp", 80, "", 8000, 8010)
    ]


def test_several_bindings_and_duplicates() -> None:
    binding = {"HostIp": "", "HostPort": "80"}
    assert len(requests.requests({"80/tcp": [binding, binding, {"HostPort": "81"}]}, None, False)) == 2


@given(first=PORT, count=st.integers(0, 20), host=PORT, proto=st.sampled_from(requests.PROTOCOLS))
def test_equal_ranges_map_one_to_one(first: int, count: int, host: int, proto: str) -> None:
    last, host_last = first + count, host + count
    bindings = {f"{first}-{last}/{proto}": [{"HostPort": f"{host}-{host_last}"}]}
    if last > 65535 or host_last > 65535:
        with pytest.raises(InvalidArgument):
            requests.requests(bindings, None, False)
        return
    wanted = requests.requests(bindings, None, False)
    assert [(r.container_port, r.host_port) for r in wanted] == [(first + i, host + i) for i in range(count + 1)]
    assert all(r.proto == proto and r.host_port_end == r.host_port for r in wanted)


@pytest.mark.parametrize(
    "key",
    ["", "/tcp", "x", "80/foo", "-1/tcp", "80-/tcp", "90-80/tcp", "65536", "0/tcp", "8 0", "+80", "８０", "80/tcp/x"],
)
def test_a_bad_container_port_is_refused(key: str) -> None:
    with pytest.raises(InvalidArgument):
        requests.requests({key: [{"HostPort": "1"}]}, None, False)


@pytest.mark.parametrize("host_port", ["x", "70000", "1-", "9-8", "-5", "0-5", "1-2-3", "80,81"])
def test_a_bad_host_port_is_refused(host_port: str) -> None:
    with pytest.raises(InvalidArgument):
        requests.requests({"80/tcp": [{"HostPort": host_port}]}, None, False)


def test_ranges_of_different_length_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="8000-8010"):
        requests.requests({"80-81/tcp": [{"HostPort": "8000-8010"}]}, None, False)


@pytest.mark.parametrize("host_ip", ["nonsense", "1.2.3", "1.2.3.4.5", "localhost"])
def test_a_bad_address_is_refused(host_ip: str) -> None:
    with pytest.raises(InvalidArgument):
        requests.requests({"80/tcp": [{"HostIp": host_ip, "HostPort": "80"}]}, None, False)


@pytest.mark.parametrize(("text", "address"), [("[::]", "::"), ("[::1]", "::1"), ("fd00:0::1", "fd00::1"), ("", "")])
def test_addresses_of_both_families(text: str, address: str) -> None:
    wanted = requests.requests({"80/tcp": [{"HostIp": text, "HostPort": "80"}]}, None, False)
    assert [request.host_ip for request in wanted] == [address]


@given(key=st.text(), host_ip=st.text(), host_port=st.text())
def test_any_text_is_accepted_or_refused_but_never_crashes(key: str, host_ip: str, host_port: str) -> None:
    try:
        wanted = requests.requests({key: [{"HostIp": host_ip, "HostPort": host_port}]}, None, False)
    except KetchError:
        return
    assert all(1 <= r.container_port <= 65535 and 0 <= r.host_port <= 65535 for r in wanted)
