"""Docker's facts about networks and containers as requests to Ketch."""

from __future__ import annotations

import pytest

from ketch.cli.importing import bodies

ID, OTHER = "1" * 64, "2" * 64
LOG = {"Type": "local", "Config": {"max-size": "1m"}}
NAMES = {ID: "web", OTHER: "db", OTHER[:12]: "db"}


def facts(host: dict | None = None, config: dict | None = None, **more: object) -> dict:
    return {
        "Id": ID,
        "Name": "/web",
        "Image": "sha256:theirs",
        "Config": {"Image": "busybox", **(config or {})},
        "HostConfig": {"NetworkMode": "default", **(host or {})},
        "Mounts": [],
        **more,
    }


def request(one: dict) -> dict:
    return bodies.container(one, "ours", "sha256:ours", lambda ref: NAMES.get(ref, ref))


def volume(name: str, path: str, writable: bool = True) -> dict:
    return {"Type": "volume", "Name": name, "Destination": path, "RW": writable}


@pytest.mark.parametrize(
    ("host", "key", "wanted"),
    [
        ({"Runtime": "runc"}, "Runtime", None),
        ({"Runtime": "io.containerd.runc.v2"}, "Runtime", None),
        ({"Runtime": "crun"}, "Runtime", "crun"),
        ({"NetworkMode": f"container:{OTHER}"}, "NetworkMode", "container:db"),
        ({"PidMode": f"container:{OTHER}", "NetworkMode": "host"}, "PidMode", "container:db"),
        ({"IpcMode": "shareable"}, "IpcMode", "shareable"),
        ({"Links": ["/db:/web/store", "/db:/web/db"]}, "Links", ["db:store", "db:db"]),
        ({"VolumesFrom": [f"{OTHER[:12]}:ro", "db"]}, "VolumesFrom", ["db:ro", "db"]),
        ({"LogConfig": {"Type": "local", "Config": {"max-size": "1m"}}}, "LogConfig", LOG),
    ],
)
def test_host_config(host: dict, key: str, wanted: object):
    assert request(facts(host))["HostConfig"].get(key) == wanted


@pytest.mark.parametrize(("said", "wanted"), [("sha256:theirs", "sha256:ours"), ("sha256:older", "sha256:older")])
def test_composes_label_of_the_image_is_its_id_in_ketch(said: str, wanted: str):
    labels = {"com.docker.compose.image": said, "other": "sha256:theirs"}
    one = facts(config={"Labels": labels})
    assert request(one)["Labels"] == {"com.docker.compose.image": wanted, "other": "sha256:theirs"}
    assert one["Config"]["Labels"] == labels
    assert "Labels" not in request(facts())


def test_volumes_without_a_name_get_dockers():
    one = facts(
        {"Binds": ["data:/data:ro", "/srv:/srv", "/bound"], "Mounts": [{"Type": "volume", "Target": "/m"}]},
        {"Volumes": {"/data": {}, "/own": {}, "/read": {}, "/shared": {}}},
        Mounts=[
            volume("data", "/data"),
            volume("a", "/own"),
            volume("b", "/read", False),
            volume("c", "/m"),
            volume("d", "/bound"),
        ],
    )
    host = request(one)["HostConfig"]
    assert host["Binds"] == ["data:/data:ro", "/srv:/srv"]
    wanted = {"/m": ("c", None), "/own": ("a", False), "/read": ("b", True), "/bound": ("d", False)}
    assert {mount["Target"]: (mount["Source"], mount.get("ReadOnly")) for mount in host["Mounts"]} == wanted
    assert {str(mount["VolumeOptions"]) for mount in host["Mounts"]} == {
        "{'Labels': {'com.docker.volume.anonymous': ''}}"
    }
    assert one["HostConfig"]["Mounts"] == [{"Type": "volume", "Target": "/m"}]  # the facts are not changed
    assert bodies.volumes_needed(one) == {"data", "a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("config", "host", "wanted"),
    [
        ({"Hostname": ID[:12]}, {}, ""),
        ({"Hostname": "own"}, {}, "own"),
        ({"Hostname": "machine"}, {"UTSMode": "host"}, ""),
        ({"Hostname": "theirs"}, {"NetworkMode": f"container:{OTHER}"}, ""),
    ],
)
def test_host_names(config: dict, host: dict, wanted: str):
    assert request(facts(host, config))["Hostname"] == wanted


def test_networks_have_what_was_asked_for_and_no_more():
    network = {
        "NetworkID": "n" * 64,
        "IPAMConfig": {"IPv4Address": "10.1.0.9"},
        "Aliases": ["base", ID[:12]],
        "Links": None,
        "MacAddress": "5a:65:ef:eb:f0:3b",
        "IPAddress": "10.1.0.9",
        "GwPriority": 0,
    }
    one = facts(
        {"NetworkMode": "n" * 64},
        {"MacAddress": "02:42:00:00:00:07"},
        NetworkSettings={"Networks": {"backend": network}},
    )
    made = request(one)
    assert made["HostConfig"]["NetworkMode"] == "backend"
    assert "MacAddress" not in {key for key in made if key != "NetworkingConfig"}
    assert made["NetworkingConfig"]["EndpointsConfig"] == {
        "backend": {
            "IPAMConfig": {"IPv4Address": "10.1.0.9"},
            "Aliases": ["base"],
            "MacAddress": "02:42:00:00:00:07",
        }
    }
    assert bodies.networks_needed(one) == {"backend"}


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ({}, set()),
        ({"NetworkMode": f"container:{OTHER}", "IpcMode": "container:db"}, {"db"}),
        ({"Links": ["/db:/web/store"], "VolumesFrom": ["files:ro"]}, {"db", "files"}),
    ],
)
def test_which_containers_are_needed(host: dict, wanted: set[str]):
    assert bodies.containers_needed(facts(host), lambda ref: NAMES.get(ref, ref)) == wanted


def test_network():
    pool = {"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.1", "IPRange": "", "AuxiliaryAddresses": None}
    made = bodies.network(
        {
            "Name": "backend",
            "Id": "n" * 64,
            "Created": "2026-01-01T00:00:00Z",
            "Driver": "bridge",
            "Scope": "local",
            "EnableIPv4": True,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": [pool]},
            "Internal": True,
            "Containers": {},
            "Options": {"com.docker.network.driver.mtu": "1400"},
            "Labels": {"a": "b"},
        }
    )
    assert made == {
        "Name": "backend",
        "Driver": "bridge",
        "Scope": "local",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "Internal": True,
        "Options": {"com.docker.network.driver.mtu": "1400"},
        "Labels": {"a": "b"},
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [{"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.1"}],
        },
    }
