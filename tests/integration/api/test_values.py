"""Values of answers, and the bytes around them, where types alone would not tell Docker's from others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.rawapi import Api, connected
from tests.support.waiting import patient

JSON = "Content-Type: application/json\r\n"


def exchange(engine, method: str, target: str, headers: str = "", body: str = "") -> str:
    """All that the engine sends for one request, until it closes the connection."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    with connected(engine.socket) as sock:
        sock.settimeout(patient(10))
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}{length}\r\n"
        sock.sendall((head + body).encode())
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode()


def test_a_client_that_waits_before_it_sends_its_body(engine):
    nope = '{"Image": "nope"}'
    answer = exchange(engine, "POST", "/containers/create", f"{JSON}Expect: 100-Continue\r\n", nope)
    assert answer.startswith("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\n"), answer
    assert exchange(engine, "POST", "/nothing", "Expect: 100-continue\r\n", nope).startswith("HTTP/1.1 404 ")
    assert exchange(engine, "GET", "/version", "Expect: more\r\n").startswith("HTTP/1.1 417 Expectation Failed\r\n")


@pytest.mark.parametrize(
    ("media", "words"),
    [
        ("", "malformed Content-Type header (): mime: no media type"),
        ("application/json;;", "malformed Content-Type header (application/json;;): mime: invalid media parameter"),
        ("application/json; a", "malformed Content-Type header (application/json; a): mime: invalid media parameter"),
        ("application/json; a=", "malformed Content-Type header (application/json; a=): mime: invalid media parameter"),
        ("text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        ("application/json;", "No such image: nope:latest"),
        ('Application/JSON ; charset="a b"; x=y', "No such image: nope:latest"),
    ],
)
def test_the_type_of_a_body(engine, media, words):
    header = f"Content-Type: {media}\r\n" if media else ""
    answer = exchange(engine, "POST", "/containers/create", header, '{"Image": "nope"}')
    assert json.loads(answer.partition("\r\n\r\n")[2])["message"] == words


def test_headers_and_ends_of_answers(engine):
    for target in ("/version", "/containers/json", "/nothing", "/containers/nope/json", "/v1.99/info"):
        assert exchange(engine, "GET", target).endswith(("}\n", "]\n")), target  # `read` of a shell wants the newline
    head = exchange(engine, "HEAD", "/_ping")
    assert "\r\nContent-Length: 0\r\n" in head
    assert "\r\nApi-Version: " not in exchange(engine, "GET", "/nothing")
    assert exchange(engine, "OPTIONS", "*").startswith("HTTP/1.1 200 OK\r\n")
    assert "\r\nX-Content-Type-Options: nosniff\r\n" in exchange(engine, "GET", "/v1.10/info")


def made(api: Api, name: str, **config: Any) -> dict[str, Any]:
    """A new container, as inspect shows it."""
    api.must("POST", "/containers/create", {"Image": "busybox", **config}, name=name)
    return api.must("GET", f"/containers/{name}/json")


def test_values_of_what_was_created(engine):
    api = Api(engine.socket)
    assert made(api, "now", StopTimeout=0)["Config"]["StopTimeout"] == 0
    listed = made(api, "listed", Entrypoint=[])
    assert (listed["Config"]["Entrypoint"], listed["Path"], listed["Args"]) == ([], "sh", [])
    texts = made(api, "texts", Shell="a", HostConfig={"CapAdd": "all", "CapDrop": "net_raw"})
    assert (texts["Config"]["Shell"], texts["HostConfig"]["CapDrop"]) == (["a"], ["net_raw"])
    assert texts["HostConfig"]["CapAdd"] == ["all"]
    assert made(api, "soft", HostConfig={"MemoryReservation": -1})["HostConfig"]["MemoryReservation"] == -1
    assert api.must("POST", "/containers/soft/update", {"CpuShares": 5}) == {"Warnings": None}
    assert api.must("GET", "/containers/soft/changes") is None


@pytest.mark.ketch_only  # (dockerd's swap is then -2, by an overflow)
def test_no_number_is_larger_than_clients_can_read(engine):
    largest = (1 << 63) - 1
    assert made(Api(engine.socket), "huge", HostConfig={"Memory": largest})["HostConfig"]["MemorySwap"] == largest


def test_values_of_rows(engine):
    api = Api(engine.socket)
    api.must("POST", "/networks/create", {"Name": "net", "IPAM": {"Config": [{"Subnet": "10.66.0.0/24"}]}})
    api.must("POST", "/volumes/create", {"Name": "mem", "DriverOpts": {"type": "tmpfs", "device": "tmpfs"}})
    try:
        made(
            api,
            "one",
            Cmd=["sh", "-c", "trap 'exit 7' TERM; sleep 1000 & wait"],
            StopSignal="KILL",
            HostConfig={"NetworkMode": "net"},
            NetworkingConfig={"EndpointsConfig": {"net": {"IPAMConfig": {"IPv4Address": "10.66.0.9"}}}},
        )
        api.must("POST", "/containers/one/start")
        made(api, "beside", Cmd=["sleep", "1000"], StopSignal="KILL", HostConfig={"NetworkMode": "container:one"})
        api.must("POST", "/containers/beside/start")
        made(api, "waits")
        api.must("POST", "/networks/net/connect", {"Container": "waits", "EndpointConfig": {"Aliases": ["alias"]}})
        waits = api.must("GET", "/containers/waits/json")
        names = waits["NetworkSettings"]["Networks"]["net"]["DNSNames"]
        assert names == ["waits", "alias", waits["Id"][:12]]
        row = api.must("GET", "/containers/json", filters='{"name":["one"]}')[0]
        assert row["Command"] == "sh -c 'trap 'exit 7' TERM; sleep 1000 & wait'"
        assert row["NetworkSettings"]["Networks"]["net"]["IPAMConfig"] == {"IPv4Address": "10.66.0.9"}
        beside = api.must("GET", "/containers/beside/json")["NetworkSettings"]
        assert (beside["SandboxID"], beside["SandboxKey"]) == ("", "")
        made(api, "hosted", Cmd=["sleep", "1000"], StopSignal="KILL", HostConfig={"NetworkMode": "host"})
        api.must("POST", "/containers/hosted/start")
        assert api.must("GET", "/containers/hosted/json")["NetworkSettings"]["SandboxID"]
        made(api, "vain", Cmd=["/no-such"])
        assert api("POST", "/containers/vain/start")[0] == 400
        vain = api.must("GET", "/containers/vain/json")
        assert "" not in [vain[name] for name in ("HostnamePath", "HostsPath", "ResolvConfPath", "LogPath")]
        assert "mem" not in [volume["Name"] for volume in api.must("GET", "/system/df")["Volumes"]]
    finally:
        engine.remove_all()
        api.must("DELETE", "/volumes/mem")
