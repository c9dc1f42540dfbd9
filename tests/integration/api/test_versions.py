"""Requests of older versions of the API mean what they meant, on both engines."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.support.rawapi import Api, Unix

BIND = {"Type": "bind", "Source": "/tmp", "Target": "/x"}


def create(engine, version: str, host: dict[str, Any], **config: Any) -> dict[str, Any]:
    api = Api(engine.socket)
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": host, **config}
    made = api.must("POST", f"/v{version}/containers/create", body)
    return api.must("GET", f"/v{version}/containers/{made['Id']}/json")


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
        ("/v1.52/info", "application/json", "client version 1.52 is too new. Maximum supported API version is 1.51"),
    ],
)
def test_versions_that_are_not_spoken(engine, path, kind, words):
    with contextlib.closing(Unix(engine.socket)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
    assert (answer.status, answer.headers["Content-Type"].partition(";")[0], words in text) == (400, kind, True), text
