"""Options as requests of the API."""

from __future__ import annotations

import os
import pathlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ketch
from ketch.aio import options
from ketch.errors import InvalidArgument


def body(**given) -> dict:
    return options.box_body("image", ["program"], given, one_input=None)


def test_nothing_is_given_unasked():
    """No network, no mounts, no limits, no input."""
    made = body()
    assert made["HostConfig"] == {"NetworkMode": "none", "ReadonlyRootfs": False, "Mounts": []}
    assert (made["Env"], made["User"], made["OpenStdin"], made["Cmd"]) == ([], "", False, ["program"])


def test_each_option_has_its_field():
    made = body(
        env={"A": "1", "B": ""},
        user=0,
        cwd="/w",
        hostname="h",
        labels={"l": "v"},
        entrypoint="/e",
        network="net",
        memory="1.5g",
        cpus=0.25,
        pids=7,
        read_only=True,
        init=True,
        host_config={"CapDrop": ["ALL"]},
    )
    host = made.pop("HostConfig")
    assert (made["Env"], made["User"], made["WorkingDir"], made["Hostname"]) == (["A=1", "B="], "0", "/w", "h")
    assert (made["Labels"], made["Entrypoint"]) == ({"l": "v"}, ["/e"])
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["Init"], host["CapDrop"]) == ("net", True, True, ["ALL"])
    assert host["Memory"] == host["MemorySwap"] == 3 << 29, "no swap on top of it"
    assert (host["NanoCpus"], host["PidsLimit"]) == (250_000_000, 7)


def test_mounts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources: dict[str, options.Source] = {
        "/a": "relative",
        "/b": ketch.Bind(pathlib.Path("/x"), read_only=True),
        "/c": ketch.Volume("v", read_only=True),
        "/d": ketch.Volume(),
        "/e": ketch.Tmpfs("64m"),
        "/f": ketch.Tmpfs(),
    }
    assert body(mounts=sources)["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Target": "/a", "Source": os.fspath(tmp_path / "relative"), "ReadOnly": False},
        {"Type": "bind", "Target": "/b", "Source": "/x", "ReadOnly": True},
        {"Type": "volume", "Target": "/c", "Source": "v", "ReadOnly": True},
        {"Type": "volume", "Target": "/d", "Source": "", "ReadOnly": False},
        {"Type": "tmpfs", "Target": "/e", "TmpfsOptions": {"SizeBytes": 64 << 20}},
        {"Type": "tmpfs", "Target": "/f", "TmpfsOptions": {}},
    ]


def test_ports():
    made = body(ports={80: None, "53/udp": 5353, 22: ("0.0.0.0", 2222)}, network="x")
    assert made["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}, "22/tcp": {}}
    assert made["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
        "22/tcp": [{"HostIp": "0.0.0.0", "HostPort": "2222"}],
    }


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, False),
        ({"network": False}, False),
        ({"network": True}, True),
        ({"network": "mine"}, False),
        ({"network": "none", "ports": {1: None}}, False),
        ({"ports": {1: None}}, True),
    ],
)
def test_who_wants_the_default_network(given, wanted):
    assert options.wants_default_network(given) is wanted


@given(st.integers(0, 1 << 40))
def test_sizes(number):
    assert options.bytes_of(number, "x") == options.bytes_of(str(number), "x") == number
    assert (
        options.bytes_of(f"{number} KiB".replace(" ", ""), "x") == options.bytes_of(f"{number}k", "x") == number << 10
    )


@given(st.text(alphabet="0123456789.kmgtib -ex"))
@example("inf")
@example("9e999")
@example("nan")
@example("1_0")
def test_sizes_that_are_none(text):
    """A number, or an error of ours."""
    try:
        assert options.bytes_of(text, "memory") >= 0
    except InvalidArgument as e:
        assert text in e.message


def test_commands():
    assert options.argv_of("a | b") == ["/bin/sh", "-c", "a | b"]
    assert options.argv_of(("ls", pathlib.Path("/x"))) == ["ls", "/x"]
