"""Legacy links: syntax, and environment variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.model.records import Container, ContainerConfig, HostConfig
from ketch.engine.networks import legacy_links
from ketch.errors import InvalidArgument

PORTS = st.sets(st.tuples(st.integers(1, 65535), st.sampled_from(["tcp", "udp", "sctp"])), max_size=12)


@pytest.mark.parametrize(
    ("text", "target", "alias"),
    [
        ("store", "store", "store"),
        ("store:db", "store", "db"),
        ("/store:/web/db", "store", "db"),
        ("/store", "store", "store"),
        ("1a2b3c:d_b-1.x", "1a2b3c", "d_b-1.x"),
    ],
)
def test_parse(text, target, alias):
    assert legacy_links.parse(text) == (target, alias)


@pytest.mark.parametrize("text", ["", ":", "a:b:c", ":db", "a:", "a:b c", "a:b\nc", "a:b\0", "a:/x/", "a b"])
def test_parse_refuses(text):
    with pytest.raises(InvalidArgument, match="links"):
        legacy_links.parse(text)


def target_of(ports: set[tuple[int, str]], env: list[str]) -> Container:
    config = ContainerConfig(exposed_ports={f"{n}/{p}": {} for n, p in ports}, env=env)
    return Container(id="c" * 64, name="store", created=1, image_id="", image_ref="", config=config, host=HostConfig())


@given(PORTS)
def test_each_port_is_told(ports):
    told = dict(v.split("=", 1) for v in legacy_links.variables("/web/my-db", "10.0.0.2", target_of(ports, [])))
    assert told.pop("MY_DB_NAME") == "/web/my-db"
    for number, proto in ports:
        one = f"MY_DB_PORT_{number}_{proto.upper()}"
        assert told[one] == f"{proto}://10.0.0.2:{number}"
        assert (told[f"{one}_ADDR"], told[f"{one}_PORT"], told[f"{one}_PROTO"]) == ("10.0.0.2", str(number), proto)
    assert ("MY_DB_PORT" in told) == bool(ports)
    for name, value in told.items():  # a range begins and ends at ports that are there, and has no gap
        if name.endswith("_PORT_START"):
            proto = name.split("_")[4].lower()
            last = int(told[name.removesuffix("START") + "END"])
            assert last > int(value) + 1 and {(n, proto) for n in range(int(value), last + 1)} <= ports


def test_the_lowest_tcp_port_counts_and_the_environment_goes_along():
    target = target_of({(53, "udp"), (443, "tcp"), (80, "tcp")}, ["A=b=c", "PATH=/bin", "HOME=/", "EMPTY=", "none"])
    told = legacy_links.variables("/web/db", "10.0.0.2", target)
    assert "DB_PORT=tcp://10.0.0.2:80" in told
    assert [v for v in told if "_ENV_" in v] == ["DB_ENV_A=b=c", "DB_ENV_EMPTY="]
