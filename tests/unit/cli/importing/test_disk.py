"""Docker's files: the database, layers that are put together, records."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import gzip
import io
import json
import os
import struct
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ketch.cli.importing import bodies
from ketch.cli.importing.disk import containerd, graph, records, tars
from ketch.cli.importing.disk.bolt import Bolt
from ketch.cli.importing.disk.layers import SplitLayer, inside
from ketch.errors import Conflict, DataLoss
from tests.support.importing.bolt import HEAD, PAGE, branch, database, leaf, meta, opened

if TYPE_CHECKING:
    from pathlib import Path

# Root: a bucket whose page is in its value, and one with a tree of two leaves below a branch.
SMALL = struct.pack("<QQ", 0, 0) + leaf(0, [(0, b"a", b"1"), (0, b"b", b"")])
GOOD = database(
    meta(0, 9, 1),  # older than the other one: a root that is not there
    meta(1, 3, 2),
    HEAD.pack(2, 16, 0, 0),
    leaf(3, [(1, b"inline", SMALL), (1, b"tree", struct.pack("<QQ", 4, 0))]),
    branch(4, [5, 6]),
    leaf(5, [(0, b"x", b"first")]),
    leaf(6, [(0, b"y", b"second"), (1, b"deeper", SMALL)]),
)


def test_database(tmp_path: Path):
    with opened(tmp_path / "db", GOOD) as bolt:
        assert bolt.buckets() == [b"inline", b"tree"]
        assert bolt.items(b"inline") == {b"a": b"1", b"b": b""}
        assert bolt.items(b"tree") == {b"x": b"first", b"y": b"second"}
        assert bolt.items(b"tree", b"deeper") == {b"a": b"1", b"b": b""}
        assert (bolt.items(b"nothing"), bolt.buckets(b"inline")) == ({}, [])


def test_a_database_in_use_is_refused_and_one_that_is_read_cannot_be_used(tmp_path: Path):
    path = tmp_path / "db"
    path.write_bytes(GOOD)
    with open(path, "rb") as daemon:
        fcntl.flock(daemon, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="a daemon has it open"):
            Bolt(str(path))
        fcntl.flock(daemon, fcntl.LOCK_UN)
        with Bolt(str(path)), pytest.raises(BlockingIOError):
            fcntl.flock(daemon, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(daemon, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("data", [b"", b"x" * 100, bytes(2 * PAGE), database(meta(0, 9, 1)), GOOD[: 3 * PAGE + 20]])
def test_what_is_no_database(tmp_path: Path, data: bytes):
    with pytest.raises(DataLoss), opened(tmp_path / "db", data) as bolt:
        bolt.items(b"tree")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changes=st.lists(st.tuples(st.integers(2 * PAGE, len(GOOD) - 1), st.binary(min_size=1, max_size=8)), max_size=9))
def test_a_damaged_database_is_read_or_refused(tmp_path: Path, changes: list[tuple[int, bytes]]):
    data = bytearray(GOOD)
    for place, new in changes:
        data[place : place + len(new)] = new
    with contextlib.suppress(DataLoss), opened(tmp_path / "db", bytes(data[: len(GOOD)])) as bolt:
        for name in bolt.buckets():
            bolt.items(name)


def test_pages_in_a_circle(tmp_path: Path):
    data = database(meta(0, 2, 1), meta(1, 2, 0), branch(2, [3, 3]), branch(3, [2]))
    with opened(tmp_path / "db", data) as bolt, pytest.raises(DataLoss, match="in a circle"):
        bolt.buckets()


@pytest.mark.parametrize("page", [9, 1 << 51, (1 << 64) - 1])
def test_a_page_that_is_not_there(tmp_path: Path, page: int):
    data = database(meta(0, 2, 1), meta(1, 2, 0), branch(2, [page]))
    with opened(tmp_path / "db", data) as bolt, pytest.raises(DataLoss, match=f"page {page} is not there"):
        bolt.buckets()


@pytest.fixture
def layer(tmp_path: Path):
    """A layer as Docker keeps it, and the archive that it came as."""
    files = tmp_path / "diff"
    (files / "usr/lib").mkdir(parents=True)
    os.symlink("usr/lib", files / "lib")
    (files / "usr/lib/a").write_bytes(b"content")
    odd = b"usr/\xff"
    with open(os.path.join(os.fsencode(files), odd), "wb") as f:
        f.write(b"odd")
    archive = io.BytesIO()
    lines = []

    def segment(data: bytes) -> None:
        archive.write(data)
        lines.append({"type": 2, "payload": base64.b64encode(data).decode(), "position": len(lines)})

    for name, content in ((b"lib/a", b"content"), (odd, b"odd"), (b"usr/.wh.gone", b"")):
        header = tarfile.TarInfo(os.fsdecode(name))
        header.size = len(content)
        segment(header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        archive.write(content)
        shown = {"name_raw": base64.b64encode(name).decode()} if name == odd else {"name": name.decode()}
        lines.append({"type": 1, **shown, **({"size": len(content)} if content else {}), "payload": None})
        segment(bytes(-len(content) % 512))
    segment(bytes(1024))
    notes = tmp_path / "tar-split.json.gz"
    notes.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    return SplitLayer(str(files), str(notes)), archive.getvalue(), files


def test_layers_are_the_archives_that_they_came_as(layer):
    one, archive, _ = layer
    assert b"".join(one.chunks()) == archive
    assert one.size() == len(archive)


@pytest.mark.parametrize("damage", ["missing", "shorter", "longer", "directory", "notes"])
def test_damaged_layers(layer, damage: str):
    one, _, files = layer
    path = files / "usr/lib/a"
    if damage == "missing":
        path.unlink()
    elif damage == "directory":
        path.unlink()
        path.mkdir()
    elif damage == "notes":
        notes = files.parent / "tar-split.json.gz"
        notes.write_bytes(notes.read_bytes()[:-20])
    else:
        path.write_bytes(b"con" if damage == "shorter" else b"contents!")
    with pytest.raises(DataLoss):
        list(one.chunks())


@pytest.mark.parametrize(
    ("links", "name", "wanted"),
    [
        ({}, "a/b", "a/b"),
        ({}, "../../a", "a"),
        ({"a": "/etc"}, "a/passwd", "etc/passwd"),
        ({"a": "../../../etc"}, "a/passwd", "etc/passwd"),
        ({"a": "b", "b": "c/d"}, "a/e", "c/d/e"),
        ({"a": "/etc/passwd"}, "a", "a"),
    ],
)
def test_links_of_an_image_lead_to_files_of_the_image(tmp_path: Path, links: dict[str, str], name: str, wanted: str):
    for place, target in links.items():
        os.symlink(target, tmp_path / place)
    root = os.fsencode(tmp_path)
    assert inside(root, name.encode()) == root + b"/" + wanted.encode()


def test_links_in_a_circle(tmp_path: Path):
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    with pytest.raises(DataLoss, match="in a circle"):
        inside(os.fsencode(tmp_path), b"a/x")


@given(contents=st.lists(st.binary(max_size=1500), max_size=4))
def test_archives(contents: list[bytes]):
    entries = [tars.of_bytes(f"file-{index}", data) for index, data in enumerate(contents)]
    with tarfile.open(fileobj=io.BytesIO(b"".join(tars.stream(entries)))) as archive:
        assert [archive.extractfile(member).read() for member in archive] == contents


def test_an_archive_of_a_file_that_changes(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"1234")
    with pytest.raises(DataLoss, match="4 bytes of 3"):
        list(tars.stream([tars.of_file("a", str(tmp_path / "a"), 3)]))


def test_chain_ids():
    """The digest of the chain above and a layer's, with a blank between (OCI image-spec, config.md)."""
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    both = "sha256:9932074217c35353d2e03a3f5a86549f7c67bfeb0ba53e23d69f4d4c8f7958f5"
    assert graph.chain_ids([first, second]) == [first, both]
    assert graph.chain_ids([]) == []


@pytest.mark.parametrize(
    ("full", "familiar"),
    [
        ("docker.io/library/busybox:1", "busybox:1"),
        ("docker.io/own/app:1", "own/app:1"),
        ("registry.example:5000/app:1", "registry.example:5000/app:1"),
        ("localhost/app:1", "localhost/app:1"),
    ],
)
def test_names(full: str, familiar: str):
    assert (containerd.familiar(full), containerd.full(familiar)) == (familiar, full)


def test_records_of_networks_that_are_settings_for_others():
    asked = {"PreferredPool": "10.1.0.0/16", "SubPool": "", "Gateway": "10.1.0.9", "AuxAddresses": None}
    template = {"name": "t", "id": "t", "networkType": "null", "configOnly": True}
    found = records.network({**template, "ipamV4Config": json.dumps([asked]), "ipamV4Info": "null"})
    pool = {"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.9", "IPRange": "", "AuxiliaryAddresses": {}}
    assert (found["ConfigOnly"], found["IPAM"]["Config"]) == (True, [pool])
    found = records.network({"name": "n", "id": "n", "networkType": "bridge", "configFrom": "t"})
    assert bodies.network(found) == {
        "Name": "n",
        "Driver": "bridge",
        "Scope": "local",
        "ConfigFrom": {"Network": "t"},
    }


def test_network_records():
    pool = {"AddressSpace": "LocalDefault", "Gateway": "10.1.0.254/16", "Pool": "10.1.0.0/16"}
    asked = {"PreferredPool": "10.1.0.0/16", "SubPool": "10.1.9.0/24", "Gateway": "", "AuxAddresses": {"r": "10.1.0.9"}}
    found = records.network(
        {
            "name": "backend",
            "id": "n" * 64,
            "networkType": "bridge",
            "scope": "local",
            "internal": True,
            "enableIPv6": False,
            "generic": {"com.docker.network.generic": {"com.docker.network.driver.mtu": "1400"}},
            "labels": {"a": "b"},
            "ipamType": "default",
            "ipamV4Info": json.dumps([{"IPAMData": json.dumps(pool), "PoolID": "x"}]),
            "ipamV4Config": json.dumps([asked]),
        }
    )
    assert found["IPAM"]["Config"] == [
        {
            "Subnet": "10.1.0.0/16",
            "Gateway": "10.1.0.254",
            "IPRange": "10.1.9.0/24",
            "AuxiliaryAddresses": {"r": "10.1.0.9"},
        }
    ]
    assert (found["Internal"], found["Attachable"], found["EnableIPv4"], found["EnableIPv6"]) == (
        True,
        False,
        True,
        False,
    )
    assert (found["Options"], found["Labels"]) == ({"com.docker.network.driver.mtu": "1400"}, {"a": "b"})
