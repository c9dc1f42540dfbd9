"""Requests of older versions of the API mean what they meant, on both engines."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest

from tests.support.rawapi import Api, Unix

BIND = {"Type": "bind", "Source": "/tmp", "Target": "/x"}
MAC = "02:42:ac:11:00:63"
ON_V1 = os.path.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes")


def body(host: dict[str, Any], **config: Any) -> dict[str, Any]:
    return {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": host, **config}


def create(engine, version: str, host: dict[str, Any], **config: Any) -> dict[str, Any]:
    api = Api(engine.socket)
    made = api.must("POST", f"/v{version}/containers/create", body(host, **config))
    return api.must("GET", f"/v{version}/containers/{made['Id']}/json")


@pytest.mark.parametrize(("version", "kept"), [("1.24", False), ("1.25", True)])
def test_removal_by_the_daemon(engine, version, kept):
    assert create(engine, version, {"AutoRemove": True})["HostConfig"]["AutoRemove"] == kept


@pytest.mark.skipif(not ON_V1, reason="with cgroup v2 the default has always been a namespace of its own")
def test_cgroups_of_the_host(engine):
    assert create(engine, "1.40", {})["HostConfig"]["CgroupnsMode"] == "host"
    assert create(engine, "1.40", {"CgroupnsMode": "private"})["HostConfig"]["CgroupnsMode"] == "private"


@pytest.mark.parametrize(
    ("version", "config", "host", "status", "words"),
    [
        ("1.41", {}, {"Mounts": [{**BIND, "VolumeOptions": {}}]}, 400, "field VolumeOptions must not be specified"),
        ("1.42", {}, {"Mounts": [{**BIND, "VolumeOptions": {}}]}, 400, "VolumeOptions must not be specified on mount"),
        ("1.42", {}, {"Mounts": [{**BIND, "TmpfsOptions": {}}]}, 400, "TmpfsOptions must not be specified on mount"),
        (
            "1.43",
            {},
            {"Mounts": [{**BIND, "BindOptions": {"ReadOnlyForceRecursive": True}}]},
            400,
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
        (
            "1.43",
            {"NetworkingConfig": {"EndpointsConfig": {"bridge": {}, "other": {}}}},
            {},
            400,
            "Container cannot be created with multiple network endpoints: ",
        ),
        (
            "1.44",
            {},
            {"Mounts": [{"Type": "volume", "Source": "data", "Target": "/x", "VolumeOptions": {"Subpath": "a"}}]},
            400,
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
        (
            "1.47",
            {},
            {"Mounts": [{"Type": "image", "Source": "busybox", "Target": "/x"}]},
            400,
            'Mount type "Image" needs API v1.48 or newer',
        ),
        ("1.43", {"MacAddress": MAC}, {"NetworkMode": "host"}, 400, "conflicting options: mac-address and the network"),
        (
            "1.44",
            {"MacAddress": MAC, "NetworkingConfig": {"EndpointsConfig": {"none": {}}}},
            {},
            400,
            "unable to migrate container-wide MAC address to a specific network: HostConfig.NetworkMode must match",
        ),
        (
            "1.44",
            {
                "MacAddress": MAC,
                "NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "02:00:00:00:00:01"}}},
            },
            {},
            400,
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network",
        ),
        (
            "1.51",
            {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "zz"}}}},
            {},
            400,
            "invalid config for network bridge: invalid MAC address zz",
        ),
        (
            "1.51",
            {"NetworkingConfig": {"EndpointsConfig": {"bridge": None}}},
            {},
            400,
            "invalid config for network bridge: EndpointsConfig is nil",
        ),
    ],
)
def test_refused_by_old_versions(engine, version, config, host, status, words):
    found, answer = Api(engine.socket)("POST", f"/v{version}/containers/create", body(host, **config))
    assert (found, words in answer["message"]) == (status, True), answer


@pytest.mark.parametrize(("version", "warns"), [("1.43", False), ("1.44", True), ("1.51", True)])
def test_the_hardware_address_of_the_container(engine, version, warns):
    api = Api(engine.socket)
    made = api.must("POST", f"/v{version}/containers/create", body({}, MacAddress=MAC))
    words = "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
    assert made["Warnings"] == ([words] if warns else [])
    api.must("POST", f"/containers/{made['Id']}/start")
    found = api.must("GET", f"/containers/{made['Id']}/json")
    assert (found["Config"]["MacAddress"], found["NetworkSettings"]["Networks"]["bridge"]["MacAddress"]) == (MAC, MAC)


@pytest.mark.parametrize(("version", "kept"), [("1.43", False), ("1.44", True)])
def test_the_hardware_address_of_an_endpoint(engine, version, kept):
    endpoints = {"EndpointsConfig": {"bridge": {"MacAddress": MAC}}}
    found = create(engine, version, {}, NetworkingConfig=endpoints)
    assert found["Config"].get("MacAddress") == (MAC if kept else None)


@pytest.mark.parametrize(("version", "priority"), [("1.47", 0), ("1.48", 5)])
def test_priorities_of_gateways(engine, version, priority):
    found = create(engine, version, {}, NetworkingConfig={"EndpointsConfig": {"bridge": {"GwPriority": 5}}})
    assert found["NetworkSettings"]["Networks"]["bridge"]["GwPriority"] == priority


def test_sysctls_of_an_interface(engine):
    api, name = Api(engine.socket), "net.ipv4.conf.eth0.log_martians"
    option = {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1"}
    made = api.must("POST", "/v1.47/containers/create", body({"Sysctls": {name: "1"}}))
    assert made["Warnings"][0].startswith(
        f'Migrated sysctl "{name}" to DriverOpts{{"com.docker.network.endpoint.sysctls":'
    )
    found = api.must("GET", f"/containers/{made['Id']}/json")
    assert (found["HostConfig"].get("Sysctls"), found["NetworkSettings"]["Networks"]["bridge"]["DriverOpts"]) == (
        None,
        option,
    )
    other = {"Sysctls": {name.replace("eth0", "eth1"): "1"}}
    status, answer = api("POST", "/v1.47/containers/create", body(other))
    assert (status >= 400, "unable to determine network endpoint for sysctl" in answer["message"]) == (True, True)


def test_settings_for_another_network_alone(engine):
    found = create(engine, "1.51", {}, NetworkingConfig={"EndpointsConfig": {"other": {}}})
    assert list(found["NetworkSettings"]["Networks"]) == ["other"]


@pytest.mark.parametrize("version", ["1.43", "1.44"])
def test_mounts_below_a_read_only_bind(engine, version):
    """The proof is the mount table: what is mounted below is writable to clients who knew nothing else."""
    host = {"Binds": ["/proc:/below:ro"], "Mounts": [{**BIND, "Source": "/sys", "ReadOnly": True}]}
    made = create(engine, version, host, Cmd=["cat", "/proc/self/mountinfo"])
    assert "BindOptions" not in made["HostConfig"]["Mounts"][0]
    api = Api(engine.socket)
    api.must("POST", f"/containers/{made['Id']}/start")
    api.must("POST", f"/containers/{made['Id']}/wait")
    status, log = api("GET", f"/containers/{made['Id']}/logs", stdout=1)
    places = [line.split() for line in log.decode(errors="replace").splitlines() if line.count(" - ")]
    below = {words[4]: words[5].split(",") for words in places if words[4].startswith("/x/")}
    assert below, log
    assert all("ro" in options for options in below.values()) == (version == "1.44"), below


@pytest.mark.parametrize(("version", "old"), [("1.44", True), ("1.45", False)])
def test_aliases(engine, version, old):
    api = Api(engine.socket)
    api.must("POST", "/networks/create", {"Name": "own"})
    found = create(engine, version, {"NetworkMode": "own"}, Hostname="web")
    own = found["NetworkSettings"]["Networks"]["own"]
    assert own["Aliases"] == ([found["Id"][:12], "web"] if old else None)


@pytest.mark.parametrize(
    ("version", "has", "lacks"),
    [
        ("1.43", {"VirtualSize", "ContainerConfig"}, set()),
        ("1.44", {"ContainerConfig"}, {"VirtualSize"}),
        ("1.45", set(), {"VirtualSize", "ContainerConfig"}),
    ],
)
def test_what_an_image_had(engine, version, has, lacks):
    found = Api(engine.socket).must("GET", f"/v{version}/images/busybox/json")
    assert (has - set(found), lacks & set(found)) == (set(), set())


@pytest.mark.parametrize(("version", "whole"), [("1.45", True), ("1.49", True), ("1.50", False)])
def test_the_configuration_of_an_image(engine, version, whole):
    found = Api(engine.socket).must("GET", f"/v{version}/images/busybox/json")["Config"]
    old = {"Hostname", "Domainname", "Image", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin"}
    assert (old | {"StdinOnce"}) & set(found) == ((old | {"StdinOnce"}) if whole else set())
    assert {"User", "Env", "Cmd", "Volumes", "WorkingDir", "Entrypoint", "OnBuild", "Labels"} <= set(found)


@pytest.mark.parametrize(("version", "names"), [("1.42", ["<none>:<none>"]), ("1.43", [])])
def test_names_of_an_image_without(engine, version, names):
    api = Api(engine.socket)
    made = create(engine, "1.51", {})["Id"]
    image = api.must("POST", "/commit", container=made, pause=0)["Id"]
    rows = api.must("GET", f"/v{version}/images/json", all=1)
    assert [row["RepoTags"] for row in rows if row["Id"] == image] == [names]
    api.must("DELETE", f"/images/{image}")


@pytest.mark.parametrize(("version", "found"), [("1.40", 0), ("1.41", 1)])
def test_the_old_filter_of_images(engine, version, found):
    rows = Api(engine.socket).must("GET", f"/v{version}/images/json", filter="nothing")
    assert any("busybox:latest" in row["RepoTags"] for row in rows) == bool(found)


@pytest.mark.parametrize(
    ("method", "path", "query", "since"),
    [
        ("GET", "/system/df", {"type": "nothing"}, "1.42"),
        ("GET", "/images/busybox/json", {"platform": "nothing"}, "1.49"),
        ("GET", "/images/busybox/history", {"platform": "nothing"}, "1.48"),
        ("POST", "/containers/create", {"platform": "nothing/x"}, "1.41"),
        ("POST", "/containers/NAME/stop", {"signal": "NOTHING", "t": "0"}, "1.42"),
        ("POST", "/containers/NAME/restart", {"signal": "NOTHING", "t": "0"}, "1.42"),
        ("POST", "/containers/NAME/wait", {"condition": "nothing"}, "1.30"),
    ],
)
def test_parameters_that_were_not_there(engine, method, path, query, since):
    """A value that no engine takes shows whether it was read."""
    api = Api(engine.socket)
    created = path.endswith("/create")
    name = (
        "" if created else create(engine, "1.51", {}, Cmd=["true"] if path.endswith("wait") else ["sleep", "9"])["Id"]
    )
    if name and "/containers/" in path:
        api.must("POST", f"/containers/{name}/start")
    data = body({}) if created else None
    for version, taken in ((since, False), (f"1.{int(since[2:]) - 1}", True)):
        status, answer = api(method, f"/v{version}{path.replace('NAME', name)}", data, **query)
        assert (status < 400) == taken, (version, status, answer)


@pytest.mark.parametrize(
    ("method", "path", "name", "data", "since"),
    [
        ("POST", "/images/create?fromSrc=-&platform=no/such/such/platform", "", bytes(1024), "1.32"),
        ("GET", "/images/get?names=busybox&platform=nothing", "", None, "1.48"),
        ("GET", "/images/busybox/get?platform=nothing", "", None, "1.48"),
        ("POST", "/images/load?platform=nothing", "", b"no archive", "1.48"),
        ("DELETE", "/images/NAME?platforms=nothing", "versions:here", None, "1.50"),
        ("POST", "/images/NAME/push?platform=nothing", "127.0.0.1:1/versions:latest", b"", "1.46"),
    ],
)
def test_platforms_that_were_not_there(engine, method, path, name, data, since):
    api = Api(engine.socket)
    for version, taken in ((since, False), (f"1.{int(since[2:]) - 1}", True)):
        if name:
            repository, _, tag = name.rpartition(":")
            api.must("POST", "/images/busybox/tag", repo=repository, tag=tag)
        status, answer = api(method, f"/v{version}{path.replace('NAME', name)}", data)
        assert (status < 400) == taken, (version, status, answer)
    if name:
        api("DELETE", f"/images/{name}")
    if "fromSrc" in path:
        api.must("DELETE", f"/images/{answer['status']}")


@pytest.mark.parametrize(("version", "counted"), [("1.41", False), ("1.42", True)])
def test_shared_sizes(engine, version, counted):
    rows = Api(engine.socket).must("GET", f"/v{version}/images/json", **{"shared-size": 1})
    assert {row["SharedSize"] >= 0 for row in rows} == {counted}


@pytest.mark.parametrize(("version", "once"), [("1.40", False), ("1.41", True)])
def test_one_sample_of_stats(engine, version, once):
    name = create(engine, "1.51", {})["Id"]
    api = Api(engine.socket)
    api.must("POST", f"/containers/{name}/start")
    found = api.must("GET", f"/v{version}/containers/{name}/stats", stream=0, **{"one-shot": 1})
    assert found["preread"].startswith("0001-01-01T00:00:00Z") == once


@pytest.mark.ketch_only  # (dockerd has them with its other store of images alone)
@pytest.mark.parametrize(
    ("path", "since"),
    [("/images/json", "1.47"), ("/images/busybox/json", "1.48"), ("/images/busybox:latest/json", "1.48")],
)
def test_manifests(engine, path, since):
    for version, there in ((since, True), (f"1.{int(since[2:]) - 1}", False)):
        found = Api(engine.socket).must("GET", f"/v{version}{path}", manifests=1)
        row = found[0] if isinstance(found, list) else found
        assert ("Manifests" in row) == there, version
        assert ("Descriptor" in row) == (version >= "1.48"), version


@pytest.mark.parametrize(("version", "made"), [("1.47", True), ("1.48", False)])
def test_a_network_without_addresses(engine, version, made):
    status, answer = Api(engine.socket)("POST", f"/v{version}/networks/create", {"Name": "own", "EnableIPv4": False})
    assert (status == 201) == made, answer


@pytest.mark.parametrize(("version", "listed"), [("1.27", True), ("1.28", False)])
def test_containers_in_the_list_of_networks(engine, version, listed):
    api = Api(engine.socket)
    made = create(engine, "1.51", {})["Id"]
    api.must("POST", f"/containers/{made}/start")
    rows = api.must("GET", f"/v{version}/networks")
    assert (made in next(row["Containers"] for row in rows if row["Name"] == "bridge")) == listed


@pytest.mark.parametrize(("version", "named"), [("1.24", False), ("1.25", True)])
def test_security_options(engine, version, named):
    found = Api(engine.socket).must("GET", f"/v{version}/info")["SecurityOptions"]
    assert ("seccomp" in found, any("name=seccomp" in option for option in found)) == (not named, named)


@pytest.mark.parametrize(("version", "there"), [("1.46", True), ("1.47", False)])
def test_rules_of_artifacts(engine, version, there):
    found = Api(engine.socket).must("GET", f"/v{version}/info")["RegistryConfig"]
    assert ("AllowNondistributableArtifactsCIDRs" in found) == there


def test_kinds_of_disk_usage(engine):
    api = Api(engine.socket)
    found = api.must("GET", "/system/df", type="container")
    assert (found["Images"], found["Volumes"], isinstance(found["Containers"], list)) == (None, None, True)
    status, answer = api("GET", "/system/df", type="nothing")
    assert (status, "unknown object type: nothing" in answer["message"]) == (400, True)


@pytest.mark.parametrize(("version", "mode"), [("1.24", "shareable"), ("1.39", "shareable"), ("1.40", "private")])
def test_ipc_is_shareable(engine, version, mode):
    assert create(engine, version, {})["HostConfig"]["IpcMode"] == mode
    assert create(engine, version, {"IpcMode": "none"})["HostConfig"]["IpcMode"] == "none"


@pytest.mark.parametrize(
    ("version", "options", "kept"),
    [
        ("1.39", {"NonRecursive": True}, False),
        ("1.40", {"NonRecursive": True}, True),
        ("1.41", {"CreateMountpoint": True}, False),
        ("1.42", {"CreateMountpoint": True}, True),
    ],
)
def test_options_of_binds(engine, version, options, kept):
    found = create(engine, version, {"Mounts": [{**BIND, "BindOptions": options}]})
    assert found["HostConfig"]["Mounts"][0].get("BindOptions") == (options if kept else {})


@pytest.mark.parametrize(("version", "size"), [("1.41", [0, 0]), ("1.42", [1, 2])])
def test_the_size_of_the_console(engine, version, size):
    assert create(engine, version, {"ConsoleSize": [1, 2]})["HostConfig"]["ConsoleSize"] == size


@pytest.mark.parametrize(("version", "kept"), [("1.42", None), ("1.43", {"a": "b"})])
def test_annotations(engine, version, kept):
    assert create(engine, version, {"Annotations": {"a": "b"}})["HostConfig"].get("Annotations") == kept


@pytest.mark.parametrize(("version", "kept"), [("1.43", None), ("1.44", 5_000_000)])
def test_the_start_interval(engine, version, kept):
    check = {"Test": ["CMD", "true"], "StartInterval": 5_000_000}
    found = create(engine, version, {}, Healthcheck=check)["Config"]["Healthcheck"]
    assert found.get("StartInterval") == kept


@pytest.mark.parametrize(("version", "shown"), [("1.45", False), ("1.46", True)])
def test_annotations_of_rows(engine, version, shown):
    create(engine, "1.51", {"Annotations": {"a": "b"}})
    row = Api(engine.socket).must("GET", f"/v{version}/containers/json", all=1)[0]
    assert ("Annotations" in row["HostConfig"]) == shown


@pytest.mark.parametrize(("version", "limit"), [("1.39", 7), ("1.40", 9)])
def test_the_limit_of_processes_in_an_update(engine, version, limit):
    api = Api(engine.socket)
    one = create(engine, "1.51", {"PidsLimit": 7})["Id"]
    api.must("POST", f"/v{version}/containers/{one}/update", {"PidsLimit": 9})
    assert api.must("GET", f"/containers/{one}/json")["HostConfig"]["PidsLimit"] == limit


@pytest.mark.parametrize(("version", "gone"), [("1.41", True), ("1.42", False)])
def test_a_prune_of_volumes_with_names(engine, version, gone):
    api = Api(engine.socket)
    api.must("POST", "/volumes/create", {"Name": "named"})
    deleted = api.must("POST", f"/v{version}/volumes/prune")["VolumesDeleted"] or []
    assert ("named" in deleted) == gone
    api("DELETE", "/volumes/named")


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ("1.41", {"KernelMemory", "BridgeNfIptables", "BridgeNfIp6tables"}),
        ("1.49", {"BridgeNfIptables", "BridgeNfIp6tables"}),
        ("1.50", set()),
    ],
)
def test_what_info_had(engine, version, names):
    found = Api(engine.socket).must("GET", f"/v{version}/info")
    assert {"KernelMemory", "BridgeNfIptables", "BridgeNfIp6tables"} & set(found) == names


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("/v1.23/info", "text/plain", "client version 1.23 is too old. Minimum supported API version is 1.24"),
        ("/v0.1/info", "text/plain", "client version 0.1 is too old"),
        ("/v1/info", "text/plain", "client version 1 is too old"),
        ("/v1..24/info", "text/plain", "client version 1..24 is too old"),
        ("/v1.51.1/info", "application/json", "client version 1.51.1 is too new"),
        ("/v1.52/info", "application/json", "client version 1.52 is too new. Maximum supported API version is 1.51"),
    ],
)
def test_versions_that_are_not_spoken(engine, path, kind, words):
    with contextlib.closing(Unix(engine.socket)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
    assert (answer.status, answer.headers["Content-Type"].partition(";")[0], words in text) == (400, kind, True), text


@pytest.mark.parametrize("version", ["1.24.0", "1.24.", "1.50.7", "1.51.0", "01.030"])
def test_other_ways_to_write_a_version(engine, version):
    api = Api(engine.socket)
    assert api("GET", f"/v{version}/info")[0] == 200
    for path in (f"/v{version}/nothing", "/v1.23/nothing", "/v1.60/nothing"):
        assert api("GET", path) == (404, {"message": "page not found", **_kind(engine)})


def _kind(engine) -> dict[str, str]:
    return {"kind": "not_found"} if engine.kind == "ketch" else {}
