"""Records of Docker's in which something has another type than Docker gives it: told, and the rest comes."""

from __future__ import annotations

import copy
import hashlib
import json
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.cli.importing import bodies
from ketch.cli.importing.disk import data_root
from ketch.cli.importing.disk.data_root import DataRoot
from ketch.cli.importing.plan import IMPORT, THERE, UNREADABLE, Planner, Wish
from ketch.cli.importing.source import CONTAINER, IMAGE, NETWORK, VOLUME
from ketch.client.http import quote
from ketch.notation.sizes import human_size
from tests.support.importing.bolt import database, leaf, meta
from tests.support.importing.nothing import Nothing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.cli.importing.plan import Part

PATIENT = settings(deadline=None, max_examples=250)
ODD = st.sampled_from(
    [None, True, -1, 1 << 70, 10**400, 0.5, float("nan"), "", "odd", "a/../b", "\ud800", "x" * 300]
) | st.sampled_from([[], [None], [1], ["a"], [[]], {}, {"a": None}, {"a": 1}, {"a": {}}, {"a": "b"}])


def image_config(name: str) -> dict[str, Any]:
    return {
        "created": "2026-01-01T00:00:00Z",
        "architecture": "amd64",
        "config": {"Cmd": [name], "Healthcheck": {"Test": ["NONE"]}, "Labels": {"a": "b"}},
        "rootfs": {"type": "layers", "diff_ids": []},
    }


def image_id(config: object) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(config).encode()).hexdigest()


def container(name: str, image: str) -> dict[str, Any]:
    return {
        "ID": hashlib.sha256(name.encode()).hexdigest(),
        "Name": f"/{name}",
        "Image": image,
        "Driver": "overlay2",
        "Created": "2026-01-01T00:00:00Z",
        "Config": {"Image": "busybox", "Labels": {"a": "b"}, "Volumes": {"/anonymous": {}}, "Hostname": "h"},
        "MountPoints": {
            "/data": {"Name": "good-volume", "Destination": "/data", "RW": True, "Type": "volume"},
            "/anonymous": {"Name": "good-volume", "Destination": "/anonymous", "RW": True},
        },
        "NetworkSettings": {
            "Networks": {
                "good-network": {"NetworkID": "n", "Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.1.0.9"}}
            }
        },
    }


HOST = {
    "NetworkMode": "good-network",
    "IpcMode": "private",
    "PidMode": "",
    "Runtime": "runc",
    "Links": ["/good-container:/x/y"],
    "VolumesFrom": ["good-container:ro"],
    "Binds": ["good-volume:/data"],
    "Mounts": [{"Type": "volume", "Source": "good-volume", "Target": "/mnt"}],
}


def network(name: str) -> dict[str, Any]:
    pool = {"Gateway": "10.1.0.254/16", "Pool": "10.1.0.0/16"}
    asked = {"PreferredPool": "10.1.0.0/16", "SubPool": "10.1.9.0/24", "AuxAddresses": {"r": "10.1.0.9"}}
    return {
        "name": name,
        "id": name * 3,
        "networkType": "bridge",
        "scope": "local",
        "internal": False,
        "attachable": False,
        "enableIPv6": False,
        "configOnly": False,
        "configFrom": "",
        "generic": {"com.docker.network.generic": {"mtu": "1400"}},
        "labels": {"a": "b"},
        "ipamType": "default",
        "ipamOptions": {},
        "ipamV4Info": [{"IPAMData": pool, "PoolID": "x"}],
        "ipamV4Config": [asked],
    }


def template(name: str) -> dict[str, Any]:
    return {**network(name), "networkType": "null", "configOnly": True, "ipamV4Info": None}


def volume(name: str) -> dict[str, Any]:
    return {"Name": name, "Driver": "local", "Labels": {"a": "b"}, "Options": {"type": "tmpfs"}}


IMAGE_CONFIG = image_config("odd")
RECORDS: dict[str, Any] = {  # each beside a good one of its kind
    "config": container("odd-container", image_id(image_config("good"))),
    "host": HOST,
    "network": network("odd-network"),
    "template": template("odd-template"),
    "volume": volume("odd-volume"),
    "options": {"MountType": "tmpfs", "MountOpts": "size=1m", "MountDevice": "tmpfs"},
    "image": IMAGE_CONFIG,
    "repositories": {"Repositories": {"odd": {"odd:1": image_id(IMAGE_CONFIG)}}},
}
GOOD = {(CONTAINER, "good-container"), (NETWORK, "good-network"), (NETWORK, "good-template"), (VOLUME, "good-volume")}
GOOD |= {(IMAGE, image_id(image_config("good")))}


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all values in a record."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from places(below, (*path, key))


PLACES = [(name, path) for name, record in RECORDS.items() for path in places(record)]


def changed(name: str, path: tuple, odd: object) -> dict[str, Any]:
    """The records with another value in one place."""
    records = copy.deepcopy(RECORDS)
    here: Any = records
    for key in (name, *path)[:-1]:
        here = here[key]
    here[(name, *path)[-1]] = odd
    return records


def in_json(network: Any) -> bytes:
    """A network's record as libnetwork writes it, with JSON in JSON."""
    if not isinstance(network, dict):
        return bytes(8) + json.dumps(network).encode()
    found = dict(network)
    if isinstance(found.get("ipamV4Info"), list):
        found["ipamV4Info"] = [
            {**one, "IPAMData": json.dumps(one["IPAMData"])} if isinstance(one, dict) and "IPAMData" in one else one
            for one in found["ipamV4Info"]
        ]
    for key in ("ipamV4Info", "ipamV4Config"):
        if key in found and isinstance(found[key], list | dict | None):
            found[key] = json.dumps(found[key])
    return bytes(8) + json.dumps(found).encode()


def buckets(name: bytes, records: dict[bytes, bytes]) -> bytes:
    items = [(0, key, value) for key, value in sorted(records.items())]
    inner = [(1, name, struct.pack("<QQ", 4, 0))]
    return database(meta(0, 3, 1), meta(1, 3, 2), b"", leaf(3, inner), leaf(4, items))


def write(place: Path, records: dict[str, Any]) -> None:
    """A data root with these records, and good ones."""
    good, prefix = image_config("good"), data_root._NETWORK
    networks = {
        prefix + b"good": in_json(network("good-network")),
        prefix + b"goodt": in_json(template("good-template")),
        prefix + b"odd": in_json(records["network"]),
        prefix + b"oddt": in_json(records["template"]),
    }
    volumes = {
        b"good-volume": json.dumps(volume("good-volume")).encode(),
        b"odd-volume": json.dumps(records["volume"]).encode(),
    }
    content = "image/overlay2/imagedb/content/sha256/"
    good_container = {**container("good-container", image_id(good)), "NetworkSettings": None, "MountPoints": None}
    files: dict[str, Any] = {
        data_root._VOLUMES: buckets(b"volumes", volumes),
        data_root._NETWORKS: buckets(b"libnetwork", networks),
        "containers/odd/config.v2.json": records["config"],
        "containers/odd/hostconfig.json": records["host"],
        "containers/good/config.v2.json": good_container,
        "containers/good/hostconfig.json": {"NetworkMode": "none"},
        "volumes/odd-old/opts.json": records["options"],
        "volumes/odd-old/_data/file": "",
        content + image_id(records["image"]).removeprefix("sha256:"): records["image"],
        content + image_id(good).removeprefix("sha256:"): good,
        "image/overlay2/repositories.json": records["repositories"],
    }
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())


class Everything(Nothing):
    """A Ketch that has networks and volumes of all names, and no images."""

    def network(self, name: str) -> dict:
        return {"Name": name, "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "10.1.0.0/16"}]}, "ConfigOnly": False}

    def volume(self, name: str) -> dict:
        return {"Name": name, "Options": {"type": "tmpfs"}}

    def is_unfilled(self, _name: str) -> bool:
        return False


def planned(records: dict[str, Any], ours: Nothing) -> list[Part]:
    with TemporaryDirectory() as place:
        write(Path(place), records)
        with DataRoot(place) as docker:
            planner = Planner(docker, ours, Wish())
            parts = planner.parts()
            for part in parts:
                requested(part, planner)
    return parts


def requested(part: Part, planner: Planner) -> None:
    """Make what would be sent, and what is shown."""
    if part.size >= 0:
        human_size(part.size)
    if part.action == IMPORT and part.kind == NETWORK:
        json.dumps(bodies.network(part.facts))
    elif part.action == IMPORT and part.kind == CONTAINER:
        json.dumps(bodies.container(part.facts, "a", "b", planner.name_of))
        quote(part.name)
    elif part.action == IMPORT and part.kind == VOLUME:
        quote(part.name)


@pytest.mark.parametrize("ours", [Nothing(), Everything()])
def test_all_of_it_can_be_read(ours: Nothing):
    parts = planned(RECORDS, ours)
    assert {part.action for part in parts} <= {IMPORT, THERE}
    assert len(parts) == 11


@PATIENT
@given(place=st.sampled_from(PLACES), odd=ODD, has_all=st.booleans())
def test_an_odd_value_costs_no_more_than_what_has_it(place: tuple, odd: object, has_all: bool):
    parts = planned(changed(*place, odd), Everything() if has_all else Nothing())
    good = {part.key: part.action for part in parts if part.key in GOOD}
    assert good.keys() == GOOD and set(good.values()) <= {IMPORT, THERE}
    assert all(part.note for part in parts if part.action == UNREADABLE)


@pytest.mark.parametrize("pool", [7, [], {}, ["10.1.0.0/16"], True])
@pytest.mark.parametrize("ours", [Nothing(), Everything()])
def test_a_subnet_that_is_no_text(pool: object, ours: Nothing):
    found = ("network", "odd", ("ipamV4Info", 0, "IPAMData", "Pool"))
    for record, name, where in (found, ("template", "oddt", ("ipamV4Config", 0, "PreferredPool"))):
        parts = {part.name: part for part in planned(changed(record, where, pool), ours)}
        assert parts[name].action == UNREADABLE and "Subnet" in parts[name].note
