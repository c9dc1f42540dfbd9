"""The text of /etc/hosts and /etc/resolv.conf."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgument
from ketch.network import files


def test_hosts_names_loopback_and_the_container() -> None:
    text = files.hosts("web", "", "172.28.0.2", [])
    assert text.startswith("127.0.0.1\tlocalhost\n::1\tlocalhost")
    assert text.endswith("172.28.0.2\tweb\n")


def test_a_domain_gives_the_long_name_first() -> None:
    assert files.hosts("web", "example.org", "10.0.0.2", []).endswith("10.0.0.2\tweb.example.org web\n")
    assert files.hosts("web.example.org", "", "10.0.0.2", []).endswith("10.0.0.2\tweb.example.org web\n")


def test_without_an_address_the_name_is_left_out() -> None:
    assert "web" not in files.hosts("web", "", "", [])


def test_extra_hosts() -> None:
    text = files.hosts(
        "w", "", "", ["db:10.1.2.3", "v6:::1", "b=[fe80::1]", "up:host-gateway"], gateways=["172.28.0.1", "fd28::1"]
    )
    assert text.endswith("10.1.2.3\tdb\n::1\tv6\nfe80::1\tb\n172.28.0.1\tup\nfd28::1\tup\n")


@pytest.mark.parametrize("entry", ["", "db", "db:", ":1.2.3.4", "db:nonsense", "db:1.2.3.4\n6.6.6.6 x", "a\tb:1.2.3.4"])
def test_bad_extra_hosts_are_refused(entry: str) -> None:
    with pytest.raises(InvalidArgument):
        files.hosts("w", "", "", [entry])


def test_resolv_takes_the_hosts_servers_without_loopback() -> None:
    host = (
        "# x\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.53\nsearch a.example b.example\noptions edns0\n"
    )
    assert files.resolv([], [], [], host) == "nameserver 10.0.0.53\nsearch a.example b.example\noptions edns0\n"


def test_resolv_falls_back_when_only_loopback_is_left() -> None:
    assert files.resolv([], [], [], "nameserver 127.0.0.53\n") == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_requested_servers_replace_the_hosts() -> None:
    host = "nameserver 10.0.0.53\nsearch a.example\noptions edns0\n"
    text = files.resolv(["1.1.1.1", "127.0.0.1"], ["."], ["ndots:2", "rotate"], host)
    assert text == "nameserver 1.1.1.1\nnameserver 127.0.0.1\noptions ndots:2 rotate\n"


@given(st.text())
def test_any_host_file_gives_a_usable_one(text: str) -> None:
    servers, _, _ = files.parse_resolv(files.resolv([], [], [], text))
    assert servers
