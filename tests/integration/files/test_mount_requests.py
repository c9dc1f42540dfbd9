"""Requests with odd mounts: statuses, sentences and exit codes, the same on dockerd."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.support.rawapi import Api
from tests.support.waiting import until

TYPES = "Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists"


def mount(kind: str, source: str = "", target: str = "/d", **more: Any) -> dict[str, Any]:
    return {"Mounts": [{"Type": kind, "Source": source, "Target": target, **more}]}


def create(api: Api, host: dict[str, Any], script: str = "true", **config: Any) -> tuple[int, Any]:
    body = {"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": host, **config}
    return api("POST", "/containers/create", body)


def run(api: Api, host: dict[str, Any], script: str, **config: Any) -> bytes:
    status, made = create(api, host, script, Tty=True, **config)
    assert status == 201, made
    api.must("POST", f"/containers/{made['Id']}/start")
    api.must("POST", f"/containers/{made['Id']}/wait")
    answers: list[Any] = []

    def answered() -> bool:  # dockerd's log may follow the end
        answers.append(api.must("GET", f"/containers/{made['Id']}/logs", stdout=1))
        return answers[-1] is not None

    until(answered, "no output")
    return answers[-1].strip() if isinstance(answers[-1], bytes) else str(answers[-1]).encode()  # a number is JSON


@pytest.fixture
def api(engine):
    yield Api(engine.socket)
    engine.remove_all()
    Api(engine.socket)("POST", "/volumes/prune", filters=json.dumps({"all": ["1"]}))


@pytest.fixture
def place(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "dir").mkdir()
    return str(tmp_path)


def test_refused_at_creation(api, place):
    unknown = 'invalid mount config for type "npipe": '
    for host, code, words in (
        ({"Binds": ["/d:ro"]}, 500, "invalid volume specification: '/d:ro'"),
        ({"Binds": ["C:/x:/d"]}, 500, "invalid mode: /d"),
        ({"Binds": [f"{place}:C:\\x"]}, 500, "invalid mode: \\x"),
        (mount("npipe", place, "d"), 400, f"{unknown}invalid mount path: 'd' mount path must be absolute"),
        (mount("npipe", place, "/"), 400, f"{unknown}invalid specification: destination can't be '/'"),
        (mount("npipe", place, ImageOptions={}), 400, f"{unknown}mount type unknown"),
        (mount("image", "BAD ref", "d"), 400, "invalid mount path: 'd' mount path must be absolute"),
        (mount("bind", place, ImageOptions={}), 400, 'type "bind": field ImageOptions must not be specified'),
        (mount("bind", f"{place}/file/"), 400, f"stat {place}/file/: not a directory"),
        (mount("volume", "data", VolumeOptions={"Subpath": "a/../../b"}), 400, "subpath must be a relative path"),
        ({"Binds": ["data:/etc/passwd"]}, 500, "/etc/passwd is not directory"),
        ({"Binds": [f"{place}:/d"], **mount("volume", "", "/d/")}, 400, "Duplicate mount point: /d/"),
    ):
        status, answer = create(api, host)
        assert (status, words in answer["message"]) == (code, True), (host, status, answer)


def test_refused_at_the_start(api, place):
    conflict = "mount options conflict: "
    for host, code, exit_code, words in (
        ({"Binds": [f"{place}/file:/etc"]}, 400, 127, f'error mounting "{place}/file" to rootfs at "/etc"'),
        ({"Binds": [f"{place}/file:/etc"]}, 400, 127, TYPES),
        ({"Binds": [f"{place}/dir:/etc/passwd"]}, 400, 127, TYPES),
        ({"Binds": [f"{place}/dir:/etc/hosts"]}, 400, 127, TYPES),
        ({"Binds": [f"{place}/file/x:/d"]}, 400, 127, f"open {place}/file/x: not a directory: {TYPES}"),
        ({"Tmpfs": {"/etc/passwd": ""}}, 400, 127, TYPES),
        (mount("bind", place, BindOptions={"ReadOnlyNonRecursive": True}), 500, 128, f"{conflict}!ReadOnly && BindO"),
        (mount("bind", place, BindOptions={"ReadOnlyForceRecursive": True}), 500, 128, f"{conflict}!ReadOnly && BindO"),
        (
            mount(
                "bind",
                place,
                ReadOnly=True,
                BindOptions={"ReadOnlyNonRecursive": True, "ReadOnlyForceRecursive": True},
            ),
            500,
            128,
            f"{conflict}ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive",
        ),
        (mount("volume", "data", VolumeOptions={"Subpath": "x/y"}), 404, 128, "_data/x: no such file or directory"),
        (mount("volume", "data", VolumeOptions={"Subpath": "x/../y"}), 404, 128, "_data/y: no such file or directory"),
        (
            mount(
                "volume",
                "gone",
                VolumeOptions={"DriverConfig": {"Options": {"type": "none", "o": "bind", "device": "/nope"}}},
            ),
            500,
            128,
            "failed to mount local volume: mount /nope:",
        ),
        ({"Sysctls": {"kernel.hostname": "x"}}, 500, 128, 'conflicts with the OCI "hostname" field'),
        ({"Sysctls": {"net.ipv4.ip_forward": "x"}}, 500, 128, 'failed to write sysctl net.ipv4.ip_forward = "x"'),
        (
            {"Sysctls": {"net.ipv4.ip_forward": "0"}, "NetworkMode": "host"},
            500,
            128,
            'sysctl "net.ipv4.ip_forward" not allowed in host network namespace',
        ),
        ({"Ulimits": [{"Name": "fun", "Soft": 1, "Hard": 1}]}, 500, 128, "wrong rlimit value: RLIMIT_FUN"),
    ):
        status, made = create(api, host)
        assert status == 201, (host, made)
        status, answer = api("POST", f"/containers/{made['Id']}/start")
        state = api.must("GET", f"/containers/{made['Id']}/json")["State"]
        assert (status, words in answer["message"]) == (code, True), (host, status, answer)
        assert (state["Status"], state["ExitCode"]) == ("created", exit_code), host


def test_accepted(api, place):
    forced = mount("bind", place, ReadOnly=True, BindOptions={"ReadOnlyForceRecursive": True, "Propagation": "private"})
    assert b"Read-only" in run(api, forced, "touch /d/x")
    assert run(api, mount("volume", "data", VolumeOptions={"Subpath": "x/.."}), "ls -d /d") == b"/d"
    assert run(api, {}, "grep -c ' /data ' /proc/mounts", Volumes={"data": {}}) == b"1"
    both = {"Tmpfs": {"/d": ""}, **mount("volume", "data", "/d")}
    assert run(api, both, "grep ' /d ' /proc/mounts | cut -d' ' -f1") == b"tmpfs"


def test_capabilities_and_options(api):
    def masks(**host: Any) -> bytes:
        return run(api, host, "grep CapBnd /proc/self/status").split()[-1]

    usual = masks()
    assert masks(CapAdd=["CHOWN"], CapDrop=["CHOWN"]) == usual
    assert masks(CapAdd=["NET_ADMIN"], CapDrop=["ALL"]) == b"0000000000001000"
    status, answer = create(api, {"Privileged": True, "CapAdd": ["FUN"]})
    assert (status, answer["message"].split(" (")[0]) == (400, 'invalid CapAdd: unknown capability: "CAP_FUN"')
    for option in ("label:disable", "apparmor=unconfined", "writable-cgroups=true", "seccomp="):
        assert run(api, {"SecurityOpt": [option]}, "echo ran") == b"ran"
    for option in ("no-new-privileges:", "seccomp", "writable-cgroups=x", "label"):
        status, answer = create(api, {"SecurityOpt": [option]})
        assert (status, answer["message"].startswith("invalid --security-opt")) == (500, True), (option, answer)
    cgroups = "grep -c ' /sys/fs/cgroup[^ ]* cgroup2* ro' /proc/mounts"
    assert run(api, {"SecurityOpt": ["writable-cgroups=true"]}, cgroups) == b"0"
    assert run(api, {"SecurityOpt": ["writable-cgroups=false"]}, cgroups) != b"0"


def test_devices_of_a_directory(api, tmp_path):
    """All below it, as /dev/bus/usb has them, at their places; a relative place is below the root."""
    os.makedirs(tmp_path / "bus/001")
    os.mknod(tmp_path / "bus/001/nil", 0o600 | 0o020000, os.makedev(1, 3))
    one = {"PathOnHost": str(tmp_path / "bus"), "PathInContainer": "/dev/bus", "CgroupPermissions": "rwm"}
    assert run(api, {"Devices": [one]}, "echo x >/dev/bus/001/nil && stat -c %t:%T /dev/bus/001/nil") == b"1:3"
    one = {"PathOnHost": "/dev/null", "PathInContainer": "nil", "CgroupPermissions": "rwm"}
    assert run(api, {"Devices": [one]}, "stat -c %t:%T /nil") == b"1:3"


def test_own_name(api):
    line = "tail -1 /etc/hosts | cut -f2"
    assert run(api, {}, line, Hostname="a.b", Domainname="c") == b"a.b.c a"
    assert run(api, {}, line, Hostname="a", Domainname="c") == b"a.c a"
    assert run(api, {}, line, Hostname="a.b") == b"a.b a"
    assert run(api, {"ExtraHosts": ["x y:192.0.2.1"]}, "grep 192.0.2.1 /etc/hosts") == b"192.0.2.1\tx y"


def test_volumes_by_name(api):
    for name in ("son", "sonata"):
        api.must("POST", "/volumes/create", {"Name": name})

    def found(*names: str) -> list[str]:
        answer = api.must("GET", "/volumes", filters=json.dumps({"name": names}))
        return sorted(volume["Name"] for volume in answer["Volumes"] or ())

    assert found("son") == ["son", "sonata"]
    assert found("^son$") == ["son"]
    assert found("n.t", "[") == ["sonata"]
    assert found("[") == []
    status, answer = api("POST", "/volumes/create", {"Name": "swarm", "ClusterVolumeSpec": {}})
    assert (status, answer["message"].startswith("This node is not a swarm manager")) == (503, True)
    status, answer = api("POST", "/volumes/prune", filters=json.dumps({"all": ["true", "false"]}))
    assert (status, answer["message"][:20], answer["message"][-28:]) == (
        400,
        "invalid filter 'all=",
        ": only one value is expected",
    )


def test_volumes_from(api, place):
    def source(name: str, *binds: str) -> None:
        api.must("POST", f"/containers/create?name={name}", {"Image": "busybox", "HostConfig": {"Binds": binds}})

    def mounts(*wanted: str, **host: Any) -> dict[str, Any]:
        status, made = create(api, {"VolumesFrom": wanted, **host})
        assert status == 201, made
        found = api.must("GET", f"/containers/{made['Id']}/json")["Mounts"]
        return {m["Destination"]: (m.get("Name") or m["Source"], m["RW"], m["Mode"]) for m in found}

    source("one", f"{place}:/a:z", "data:/b")
    source("two", f"{place}/dir:/a:ro")
    assert mounts("one") == {"/a": (place, True, ""), "/b": ("data", True, "")}
    assert mounts("one:ro,z")["/a"] == (place, False, "")
    assert mounts("one", "two") == {"/a": (f"{place}/dir", False, ""), "/b": ("data", True, "")}
    assert mounts("two", "one")["/a"] == (place, True, "")
    assert mounts("one", Tmpfs={"/a": ""})["/a"] == (place, True, "")
    for wrong, words in (
        ("one:nocopy", "invalid mode: nocopy"),
        ("one:rslave", "invalid mode: rslave"),
        ("one:ro,rw", "invalid mode: ro,rw"),
        (":ro", 'invalid name or ID supplied: ""'),
    ):
        status, answer = create(api, {"VolumesFrom": [wrong]})
        assert (status, words in answer["message"]) == (400, True), (wrong, answer)
    # What another container has mounted is not filled from this one's image.
    api.must(
        "POST", "/containers/create?name=three", {"Image": "busybox", "HostConfig": {"Binds": ["empty:/etc:nocopy"]}}
    )
    assert run(api, {"VolumesFrom": ["three"]}, "[ -e /etc/passwd ] || echo none") == b"none"


def test_a_volume_without_its_directory(api, engine):
    """Also while it is mounted: somebody on the host has removed it."""
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"Binds": ["lost:/d"]}}
    name = api.must("POST", "/containers/create", body)["Id"]
    api.must("POST", f"/containers/{name}/start")
    place = api.must("GET", "/volumes/lost")["Mountpoint"]
    os.rmdir(place)
    words = f'error evaluating symlinks from mount source "{place}": lstat {place}: no such file or directory'
    for method, path in (("GET", "archive?path=/etc/passwd"), ("POST", "restart?t=0"), ("POST", "start")):
        status, answer = api(method, f"/containers/{name}/{path}")
        assert (status, words in answer["message"]) == (500, True), (path, answer)
