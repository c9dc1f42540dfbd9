"""Bodies of requests: wrong types deep inside, and fields that are not a client's to set."""

from __future__ import annotations

import pytest

from tests.support.rawapi import Api


def create(engine, host: dict, name: str = "one", **more: object):
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": host, **more}
    return Api(engine.socket)("POST", "/containers/create", body, name=name)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("tmpfs", {"Mode": "x"}),
        ("tmpfs", {"SizeBytes": "x"}),
        ("tmpfs", {"Options": "noexec"}),
        ("bind", {"Propagation": 5}),
        ("bind", {"NonRecursive": "yes"}),
        ("volume", {"NoCopy": "yes"}),
        ("volume", {"DriverConfig": "x"}),
        ("volume", {"DriverConfig": {"Options": {"o": 1}}}),
        ("volume", {"Labels": ["a"]}),
        ("image", {"Subpath": 3}),
    ],
)
def test_options_of_mounts_have_types(engine, kind, options):
    source = {"bind": "/tmp", "image": "busybox"}.get(kind, "")
    mount = {"Type": kind, "Target": "/t", "Source": source, f"{kind.capitalize()}Options": options}
    status, answer = create(engine, {"Mounts": [mount]})
    assert (status, "invalid JSON" in answer["message"]) == (400, True), answer


@pytest.mark.parametrize("requests", [[{"Count": "x"}], [{"DeviceIDs": "0"}], ["x"]])
def test_requests_of_devices_have_types(engine, requests):
    status, answer = create(engine, {"DeviceRequests": requests})
    assert (status, "invalid JSON" in answer["message"]) == (400, True), answer


def test_options_of_another_kind_of_mount(engine):
    status, answer = create(
        engine, {"Mounts": [{"Type": "bind", "Target": "/t", "Source": "/tmp", "TmpfsOptions": {}}]}
    )
    assert status == 400
    assert "TmpfsOptions must not be specified" in answer["message"]


@pytest.mark.parametrize(
    ("mount", "options"),
    [
        (
            {"Type": "tmpfs", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 448, "Options": [["noexec"]], "Unknown": 1}},
            {"SizeBytes": 4096, "Mode": 448, "Options": [["noexec"]]},
        ),
        (
            {"Type": "bind", "Source": "/tmp", "BindOptions": {"Propagation": "rslave", "CreateMountpoint": False}},
            {"Propagation": "rslave"},
        ),
        ({"Type": "bind", "Source": "/tmp", "BindOptions": {}}, {}),
        (
            {
                "Type": "volume",
                "Source": "data",
                "VolumeOptions": {"NoCopy": True, "Subpath": "", "Labels": {"a": "b"}},
            },
            {"NoCopy": True, "Labels": {"a": "b"}},
        ),
        ({"Type": "volume", "Source": "data", "VolumeOptions": {"DriverConfig": {}}}, {"DriverConfig": {}}),
        ({"Type": "image", "Source": "busybox", "ImageOptions": {"Subpath": "etc"}}, {"Subpath": "etc"}),
    ],
)
def test_options_of_mounts_are_shown_as_given(engine, mount, options):
    api = Api(engine.socket)
    try:
        status, answer = create(engine, {"Mounts": [{"Target": "/t", **mount}]})
        assert status == 201, answer
        shown = api.must("GET", "/containers/one/json")["HostConfig"]["Mounts"]
        assert shown == [{**mount, "Target": "/t", f"{mount['Type'].capitalize()}Options": options}]
    finally:
        engine.docker("rm", "-f", "one", check=False)
        engine.docker("volume", "rm", "-f", "data")


@pytest.mark.ketch_only
def test_a_client_does_not_choose_what_the_engine_gives(engine):
    """(dockerd shows these until the start, and a foreign NetworkID keeps the container from starting.)"""
    api = Api(engine.socket)
    engine.docker("network", "create", "net")
    given = {
        "IPAddress": "1.2.3.4",
        "IPPrefixLen": 9,
        "Gateway": "1.1.1.1",
        "EndpointID": "x" * 64,
        "NetworkID": "y" * 64,
        "DNSNames": ["evil"],
        "GlobalIPv6Address": "fd::1",
        "IPv6Gateway": "fd::2",
    }
    asked = {"Aliases": ["al"], "GwPriority": 3, "DriverOpts": {"a": "b"}}
    try:
        status, answer = create(
            engine, {"NetworkMode": "net"}, NetworkingConfig={"EndpointsConfig": {"net": given | asked}}
        )
        assert status == 201, answer
        create(engine, {}, name="two")
        api.must("POST", "/networks/net/connect", {"Container": "two", "EndpointConfig": given | asked})
        for name in ("one", "two"):
            shown = api.must("GET", f"/containers/{name}/json")["NetworkSettings"]["Networks"]["net"]
            assert {key: shown[key] for key in asked} == asked
            assert not any(shown[key] for key in given if key != "DNSNames"), shown
            assert "evil" not in (shown["DNSNames"] or ())
            engine.docker("start", name)
            shown = api.must("GET", f"/containers/{name}/json")["NetworkSettings"]["Networks"]["net"]
            assert "al" in shown["DNSNames"]
            assert "evil" not in shown["DNSNames"]
    finally:
        engine.docker("rm", "-f", "one", "two")
        engine.docker("network", "rm", "net")
