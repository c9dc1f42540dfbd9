"""Options that an engine on Linux cannot honour are refused by the API, or warned of; none is dropped in silence."""

from __future__ import annotations

import contextlib
import json
import os
from urllib.parse import quote

import pytest

from ketch.engine.model.records import HostConfig
from ketch.engine.spec import secrets
from tests.support.rawapi import Api, Unix
from tests.support.waiting import until


def create(engine, host: dict, **config: object):
    return Api(engine.socket)("POST", "/containers/create", {"Image": "busybox", "HostConfig": host, **config})


@pytest.mark.parametrize(
    ("host", "config", "words"),
    [
        ({"Isolation": "hyperv"}, {}, "invalid isolation (hyperv): linux only supports 'default'"),
        ({"Isolation": "process"}, {}, "invalid isolation (process): linux only supports 'default'"),
        ({"IOMaximumIOps": 20}, {}, "QoS maximum IOPs configuration is not supported on linux"),
        ({"IOMaximumBandwidth": 20}, {}, "QoS maximum bandwidth configuration is not supported on linux"),
        ({"Annotations": {"": "x"}}, {}, "the empty string is not permitted as an annotation key"),
        ({"Tmpfs": {"/a": ""}, "Binds": ["data:/a"]}, {}, "Duplicate mount point: /a"),
        ({"Tmpfs": {"/a": ""}, "Binds": ["/tmp:/a"]}, {}, "Duplicate mount point: /a"),
        ({"Binds": ["data:/a:shared"]}, {}, "field BindOptions must not be specified"),
        ({"Binds": ["data:/a:rprivate"]}, {}, "field BindOptions must not be specified"),
        ({"Binds": ["data:/a:ro,ro"]}, {}, "invalid mode: ro,ro"),
        ({"Binds": ["data:/a:copy,nocopy"]}, {}, "invalid mode: copy,nocopy"),
        ({"Binds": ["data:/a:copy"]}, {}, "invalid mode: copy"),
        ({"Binds": ["/tmp:/a:nocopy"]}, {}, "field VolumeOptions must not be specified"),
        ({"Binds": ["data:/a:ro,"]}, {}, "invalid mode: ro,"),
        ({"Binds": ["data:/a:RO"]}, {}, "invalid mode: RO"),
        ({"Binds": ["data:a"]}, {}, "invalid mount config for type \"volume\": invalid mount path: 'a'"),
        ({"Binds": ["/tmp:/"]}, {}, 'invalid mount config for type "bind": invalid specification: destination can\'t'),
        ({"Mounts": [{"Target": "/a"}]}, {}, 'invalid mount config for type "": mount type unknown'),
        (
            {"Mounts": [{"Type": "Bind", "Target": "/a"}]},
            {},
            'invalid mount config for type "Bind": mount type unknown',
        ),
        ({"VolumesFrom": [""]}, {}, "volumes-from specification cannot be an empty string"),
        ({"ExtraHosts": ["a"]}, {}, 'bad format for add-host: "a"'),
        ({"ExtraHosts": ["a=192.0.2.1"]}, {}, 'bad format for add-host: "a=192.0.2.1"'),
        ({"ExtraHosts": ["a:fe80::1%eth0"]}, {}, 'invalid IP address in add-host: "fe80::1%eth0"'),
        ({"ExtraHosts": ["a:"]}, {}, 'invalid IP address in add-host: ""'),
        ({"ExtraHosts": ["a:[::1]"]}, {}, 'invalid IP address in add-host: "[::1]"'),
        ({"UTSMode": "container:x"}, {}, "invalid UTS mode: container:x"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "90-80"}]}}, {}, 'invalid port specification: "90-80"'),
        ({"PortBindings": {"70000/tcp": [{}]}}, {}, 'invalid port specification: "70000"'),
        ({"Binds": ["/tmp:/a:shared,slave"]}, {}, "invalid mode: shared,slave"),
        ({"Binds": ["/tmp:/a:z,Z"]}, {}, "invalid mode: z,Z"),
        ({"UTSMode": "host"}, {"Hostname": "h"}, "conflicting options: hostname and the UTS mode"),
        ({"PidMode": "container:nope"}, {}, "No such container: nope"),
        ({"IpcMode": "container:nope"}, {}, "No such container: nope"),
    ],
)
def test_refused(engine, host, config, words):
    status, answer = create(engine, host, **config)
    assert (status >= 400, words in answer["message"]) == (True, True), answer


@pytest.mark.ketch_only
@pytest.mark.parametrize("name", ["secret-environment", "user", "secrets", "whatever"])
def test_annotations_of_the_engines_own(engine, name):
    """They would have it read files of the host, or make the container's program another user's."""
    status, answer = create(engine, {"Annotations": {"a": "b", f"dev.ketch.{name}": "/etc/shadow"}})
    assert (status, answer["message"].partition(" (")[0]) == (
        400,
        f"invalid Annotations: `dev.ketch.{name}` is not yours to set",
    )
    kept = secrets.runtime_annotations({"a": "b", f"dev.ketch.{name}": "x"}, HostConfig())  # of a container made before
    assert kept == {"a": "b"}


@pytest.mark.parametrize(
    ("host", "config", "words"),
    [
        ({"Dns": ["192.0.2.1"]}, {}, "dns and the network mode"),
        ({"ExtraHosts": ["a:192.0.2.1"]}, {}, "custom host-to-IP mapping and the network mode"),
        ({"PublishAllPorts": True}, {}, "port publishing and the container type network mode"),
        ({"PortBindings": {"80/tcp": [{}]}}, {}, "port publishing and the container type network mode"),
        ({"Links": ["one:x"]}, {}, "container type network can't be used with links"),
        ({}, {"Hostname": "h"}, "hostname and the network mode"),
        ({}, {"ExposedPorts": {"80/tcp": {}}}, "port exposing and the container type network mode"),
    ],
)
def test_options_of_a_network_that_is_anothers(engine, host, config, words):
    engine.docker("create", "--name", "one", "busybox")
    status, answer = create(engine, {"NetworkMode": "container:one", **host}, **config)
    assert (status, f"conflicting options: {words}" in answer["message"]) == (400, True), answer


@pytest.mark.parametrize(
    ("host", "warnings", "shown"),
    [
        ({"Isolation": "Default"}, [], {}),
        ({"CpuCount": 2}, [], {"CpuCount": 2}),
        ({"CpuPercent": 20}, ["linux does not support CPU percent. Percent discarded."], {"CpuPercent": 0}),
        (
            {"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "80"}]}},
            ["Published ports are discarded when using host network mode"],
            {},
        ),
        ({"Tmpfs": {"/a": ""}, "Mounts": [{"Type": "tmpfs", "Target": "/a"}]}, [], {}),
    ],
)
def test_kept_or_warned_of(engine, host, warnings, shown):
    status, answer = create(engine, host)
    assert (status, answer.get("Warnings")) == (201, warnings), answer
    found = Api(engine.socket).must("GET", f"/containers/{answer['Id']}/json")["HostConfig"]
    assert {name: found[name] for name in shown} == shown


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (
            {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]},
            'could not select device driver "" with capabilities: [[gpu]]',
        ),
        (
            {"DeviceRequests": [{"Driver": "nvidia", "Capabilities": [["gpu", "utility"]]}]},
            'could not select device driver "nvidia" with capabilities: [[gpu utility]]',
        ),
        ({"DeviceRequests": [{}]}, 'could not select device driver "" with capabilities: []'),
    ],
)
def test_requests_of_devices_fail_at_the_start(engine, host, words):
    status, answer = create(engine, host)
    assert status == 201, answer
    status, answer = Api(engine.socket)("POST", f"/containers/{answer['Id']}/start")
    assert (status, words in answer["message"]) == (500, True), answer


@pytest.mark.parametrize("group", ["5,0", "nope"])
def test_groups_that_are_none(engine, group):
    done = engine.docker("run", "--group-add", group, "busybox", "id", check=False)
    assert (done.code > 0, f"unable to find group {group}: no matching entries in group file" in done.err) == (
        True,
        True,
    )


def test_a_directory_without_devices(engine, tmp_path):
    (tmp_path / "file").touch()
    os.symlink("/dev/null", tmp_path / "link")
    assert engine.docker("run", "--device", str(tmp_path), "busybox", "true", check=False).code > 0


@pytest.mark.parametrize(
    "name", ["_a", "a b", "-x", "ü", "a/b", " a", "a:b", ".", "%41", "a" * 300, "a\tb", '"', "a/connect"]
)
def test_names_of_networks(engine, name):
    api = Api(engine.socket)
    made = api.must("POST", "/networks/create", {"Name": name})["Id"]
    path = f"/networks/{quote(name, safe='')}"
    try:
        assert name in [one["Name"] for one in api.must("GET", "/networks")]
        if name not in (".", "%41"):
            assert api.must("GET", path)["Id"] == made
        body = {"Image": "busybox", "Cmd": ["cat", "/etc/hosts"], "HostConfig": {"NetworkMode": name}}
        one = api.must("POST", "/containers/create", body, name="one")["Id"]
        api.must("POST", f"/containers/{one}/start")
        assert api.must("POST", f"/containers/{one}/wait")["StatusCode"] == 0
        assert list(api.must("GET", f"/containers/{one}/json")["NetworkSettings"]["Networks"]) == [name]
        api.must("DELETE", f"/containers/{one}", force=1)
    finally:
        api("DELETE", f"/networks/{made}")


@pytest.mark.parametrize("name", ["", " ", "\t"])
def test_a_network_without_a_name(engine, name):
    status, answer = Api(engine.socket)("POST", "/networks/create", {"Name": name})
    assert (status, answer["message"]) == (400, "invalid name: name is empty")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"repo": "busybox", "tag": "sha256:x"}, "invalid tag format"),
        ({"repo": "busybox", "tag": "-x"}, "invalid tag format"),
        ({"repo": "sha256", "tag": "x"}, "refusing to create an ambiguous tag using digest algorithm as name"),
        ({"repo": "sha256"}, "refusing to create an ambiguous tag using digest algorithm as name"),
        ({"repo": "docker.io/library/sha256"}, "refusing to create an ambiguous tag using digest algorithm as name"),
    ],
)
def test_tags_that_would_be_ambiguous(engine, query, words):
    status, answer = Api(engine.socket)("POST", "/images/busybox/tag", **query)
    assert (status, words in answer["message"]) == (400, True), answer


@pytest.mark.parametrize("name", ["[", "(", "*", "a{2,1}"])
def test_a_filter_that_is_no_pattern_fits_nothing(engine, name):
    engine.docker("create", "--name", "one", "busybox")
    assert engine.docker("ps", "-aq", "--filter", f"name={name}").out == ""


@pytest.mark.parametrize("host", [{}, {"NetworkMode": "host"}, {"PortBindings": {"80/tcp": [{}]}}])
def test_a_container_without_a_network(engine, host):
    api = Api(engine.socket)
    script = "test $(grep -c : /proc/net/dev) = 1 && grep -q lo: /proc/net/dev"
    status, answer = create(engine, host, Cmd=["sh", "-c", script], NetworkDisabled=True)
    assert status == 201, answer
    api.must("POST", f"/containers/{answer['Id']}/start")
    assert api.must("POST", f"/containers/{answer['Id']}/wait")["StatusCode"] == 0


@pytest.mark.parametrize("server", ["x", "192.0.2.400", "", "192.0.2.1:53", " 192.0.2.1", "01.2.3.4"])
def test_name_servers_that_are_none(engine, server):
    status, answer = create(engine, {"Dns": ["192.0.2.1", server]})
    assert status == 201, answer
    status, answer = Api(engine.socket)("POST", f"/containers/{answer['Id']}/start")
    assert (status, answer["message"].startswith(f"bad nameserver address {server}: ParseAddr")) == (500, True), answer


@pytest.mark.parametrize(
    ("given", "shown"),
    [([1], [1, 0]), ([1, 2, 3], [1, 2]), ([1, 70000], [1, 70000]), ([], [0, 0]), (None, [0, 0])],
)
def test_sizes_of_terminals(engine, given, shown):
    """An array of two, as Go reads it; the same of an exec."""
    api = Api(engine.socket)
    status, answer = create(engine, {"ConsoleSize": given}, Tty=True, Cmd=["sleep", "1000"])
    assert status == 201, answer
    path = f"/containers/{answer['Id']}"
    assert api.must("GET", f"{path}/json")["HostConfig"]["ConsoleSize"] == shown
    api.must("POST", f"{path}/start")
    made = api.must("POST", f"{path}/exec", {"Cmd": ["true"], "Tty": True, "ConsoleSize": given})["Id"]
    api.must("POST", f"/exec/{made}/start", {"Detach": True, "Tty": True, "ConsoleSize": given})


def test_names_of_ports(engine):
    """However they are written, each is one, also for -P."""
    exposed = {"80": {}, "80/tcp": {}, "81/TCP": {}, "82/": {}, "083/udp": {}}
    api = Api(engine.socket)
    status, answer = create(engine, {}, ExposedPorts=exposed, Cmd=["sleep", "1000"])
    assert status == 201, answer
    api.must("POST", f"/containers/{answer['Id']}/start")
    found = api.must("GET", f"/containers/{answer['Id']}/json")
    assert sorted(found["Config"]["ExposedPorts"]) == sorted(exposed)
    assert found["NetworkSettings"]["Ports"] == dict.fromkeys(("80/tcp", "81/tcp", "82/tcp", "83/udp"))
    (row,) = api.must("GET", "/containers/json")
    assert sorted((port["PrivatePort"], port["Type"]) for port in row["Ports"]) == [
        (80, "tcp"),
        (81, "tcp"),
        (82, "tcp"),
        (83, "udp"),
    ]


@pytest.mark.ketch_only  # dockerd publishes 80 and 80/tcp both, the second of which fails
def test_all_ports_are_published_once(engine):
    api = Api(engine.socket)
    _, answer = create(engine, {"PublishAllPorts": True}, ExposedPorts={"80": {}, "80/tcp": {}}, Cmd=["sleep", "1000"])
    api.must("POST", f"/containers/{answer['Id']}/start")
    found = api.must("GET", f"/containers/{answer['Id']}/json")["NetworkSettings"]["Ports"]
    assert list(found) == ["80/tcp"]
    assert len({binding["HostPort"] for binding in found["80/tcp"]}) == 1


def test_all_ports_there_are(engine):
    made = engine.docker("create", "-p", "1-65535:1-65535/tcp", "busybox").out.strip()
    found = Api(engine.socket).must("GET", f"/containers/{made}/json")
    assert (len(found["Config"]["ExposedPorts"]), len(found["HostConfig"]["PortBindings"])) == (65535, 65535)
    assert found["HostConfig"]["PortBindings"]["4711/tcp"] == [{"HostIp": "", "HostPort": "4711"}]


def test_texts_that_are_not_utf_8(engine):
    """Each byte that JSON cannot have becomes U+FFFD, as Go decodes it: the program gets that, and inspect shows it."""
    script = b'printf %s \\"$Z\\" \\"$0\\" | od -An -tx1'
    body = b'{"Image":"busybox","Tty":true,"Cmd":["sh","-c","' + script + b'","\xff\\ud800"],"Env":["Z=\xe4\xc3\xa4"]}'
    with contextlib.closing(Unix(engine.socket)) as connection:
        connection.request("POST", "/containers/create", body, {"Content-Type": "application/json"})
        made = json.loads(connection.getresponse().read())
    api = Api(engine.socket)
    api.must("POST", f"/containers/{made['Id']}/start")
    api.must("POST", f"/containers/{made['Id']}/wait")
    found = api.must("GET", f"/containers/{made['Id']}/json")
    assert (found["Args"][-1], "Z=\ufffd\u00e4" in found["Config"]["Env"]) == ("\ufffd\ufffd", True), found["Args"]
    log = api.must("GET", f"/containers/{made['Id']}/logs", stdout=1)
    assert log.split() == b"ef bf bd c3 a4 ef bf bd ef bf bd".split(), log


def test_a_start_in_the_pause_before_a_restart(engine):
    """It comes by itself: there is nothing to be done."""
    _, made = create(engine, {"RestartPolicy": {"Name": "always"}}, Cmd=["false"])
    api = Api(engine.socket)
    api.must("POST", f"/containers/{made['Id']}/start")

    def paused() -> bool:
        found = api.must("GET", f"/containers/{made['Id']}/json")
        return found["State"]["Restarting"] and found["RestartCount"] > 3

    until(paused, "it does not come to a pause")
    assert api("POST", f"/containers/{made['Id']}/start")[0] == 304
