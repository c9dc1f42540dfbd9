"""Docker's stores of images and containers, of which any file may be damaged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ketch.cli.importing.disk import containerd, data_root
from ketch.cli.importing.disk.containerd import ContainerdImages
from ketch.cli.importing.disk.data_root import DataRoot
from ketch.cli.importing.disk.graph import GraphImages
from ketch.cli.importing.source import CONTAINER, IMAGE, NETWORK, VOLUME, Unreadable
from ketch.errors import DataLoss, FailedPrecondition, KetchError
from tests.support.importing.bolt import branch, database, leaf, meta, opened

if TYPE_CHECKING:
    from pathlib import Path

KEYS = (
    "rootfs",
    "diff_ids",
    "Repositories",
    "config",
    "digest",
    "layers",
    "manifests",
    "mediaType",
    "size",
    "platform",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(KEYS), below, max_size=4),
    max_leaves=9,
)
PATIENT = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
DEEP = b"[" * 100_000


def graph(root: Path, config: bytes, repositories: bytes | None) -> tuple[GraphImages, str]:
    """A store of the driver overlay2 with one image."""
    place = root / "image/overlay2"
    content = place / "imagedb/content/sha256"
    content.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(config).hexdigest()
    (content / name).write_bytes(config)
    if repositories is not None:
        (place / "repositories.json").write_bytes(repositories)
    return GraphImages(str(root), "overlay2", Unreadable()), f"sha256:{name}"


def test_an_image_without_layers(tmp_path: Path):
    config = {"created": "now", "architecture": "arm", "rootfs": {}, "config": {"User": "7"}}
    names = {"Repositories": {"a": {"a:1": "?", "a@sha256:1": "?"}}}
    images, ident = graph(tmp_path, json.dumps(config).encode(), json.dumps(names).replace("?", "x").encode())
    assert images.rows() == [{"Id": ident, "RepoTags": []}]
    facts = images.facts(ident)
    assert (facts["Created"], facts["Config"], facts["RootFS"]) == ("now", {"User": "7"}, {"Layers": []})
    assert b"manifest.json" in b"".join(images.archive(ident, ["a:1"]))


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[]", b"null", b'{"Repositories": [1]}', b"\xff", DEEP])
def test_damaged_names(tmp_path: Path, damaged: bytes):
    images, ident = graph(tmp_path, b"{}", damaged)
    assert images.rows() == [{"Id": ident, "RepoTags": []}]
    ((kind, path),) = images.unreadable.reasons
    assert kind == IMAGE and path.endswith("/repositories.json")


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[]", b'{"rootfs": 1}', b'{"rootfs": {"diff_ids": [1]}}', DEEP])
def test_damaged_configurations(tmp_path: Path, damaged: bytes):
    images, ident = graph(tmp_path, damaged, None)
    with pytest.raises(DataLoss):
        images.facts(ident)
    with pytest.raises(DataLoss):
        list(images.archive(ident, []))


@PATIENT
@given(config=JSON, names=JSON)
def test_whatever_dockers_own_store_has_is_read_or_refused(tmp_path: Path, config: Any, names: Any):
    images, ident = graph(tmp_path, json.dumps(config).encode(), json.dumps(names).encode())
    for step in (images.rows, lambda: images.facts(ident), lambda: list(images.archive(ident, []))):
        with contextlib.suppress(KetchError):
            step()


def buckets(*names: bytes, of: list[tuple[int, bytes, bytes]]) -> bytes:
    """A database of buckets in buckets; the innermost one is ``of``."""
    items = of
    for name in names[::-1]:
        items = [(1, name, struct.pack("<QQ", 0, 0) + leaf(0, items))]
    return database(meta(0, 3, 1), meta(1, 3, 2), b"", leaf(3, items))


def containerds(root: Path, target: list[tuple[int, bytes, bytes]], blobs: dict[str, bytes]) -> ContainerdImages:
    """A store of containerd's with one image, of this target."""
    path = root / containerd.DATABASE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buckets(b"v1", b"moby", b"images", b"docker.io/library/a:1", b"target", of=target))
    place = root / containerd._BLOBS / "sha256"
    place.mkdir(parents=True, exist_ok=True)
    for name, data in blobs.items():
        (place / name).write_bytes(data)
    return ContainerdImages(str(root), Unreadable())


def target(media_type: str) -> list[tuple[int, bytes, bytes]]:
    return [(0, b"digest", b"sha256:m"), (0, b"mediatype", media_type.encode()), (0, b"size", b"\x02")]


@pytest.mark.parametrize(("machine", "wanted"), [("i686", "386"), ("armv7l", "arm"), ("riscv64", "amd64")])
def test_of_several_platforms_this_machines_is_taken(tmp_path: Path, monkeypatch, machine: str, wanted: str):
    architectures = ("amd64", "386", "arm")
    blobs = {"m": {"manifests": [{"mediaType": "x", "digest": f"sha256:m{name}"} for name in architectures]}}
    for name in architectures:
        blobs[f"m{name}"] = {"config": {"digest": f"sha256:c{name}"}, "layers": []}
        blobs[f"c{name}"] = {"architecture": name, "rootfs": {}}
    files = {name: json.dumps(blob).encode() for name, blob in blobs.items()}
    images = containerds(tmp_path, target(containerd._INDEXES[0]), files)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert images.facts("sha256:m")["Architecture"] == wanted
    assert images.rows() == [{"Id": "sha256:m", "RepoTags": ["a:1"]}]


@pytest.mark.parametrize("missing", range(3))
def test_an_image_whose_target_is_damaged(tmp_path: Path, missing: int):
    items = target("x")
    del items[missing]
    images = containerds(tmp_path, items, {})
    assert images.rows() == []
    ((key, reason),) = images.unreadable.reasons.items()
    assert key == (IMAGE, "docker.io/library/a:1") and "meta.db" in reason


@PATIENT
@given(manifest=JSON, config=JSON, is_index=st.booleans())
def test_whatever_containerds_store_has_is_read_or_refused(tmp_path: Path, manifest: Any, config: Any, is_index: bool):
    if isinstance(manifest, dict) and isinstance(manifest.get("config"), dict):
        manifest["config"]["digest"] = "sha256:c"
    media_type = containerd._INDEXES[0] if is_index else "x"
    blobs = {"m": json.dumps(manifest).encode(), "c": json.dumps(config).encode()}
    images = containerds(tmp_path, target(media_type), blobs)
    for step in (lambda: images.facts("sha256:m"), lambda: list(images.archive("sha256:m", ["a:1"]))):
        with contextlib.suppress(KetchError):
            step()


def test_a_chain_of_pages_without_an_end_to_their_depth(tmp_path: Path):
    depth = 5000
    pages = [branch(number, [number + 1]) for number in range(2, depth)]
    data = database(meta(0, 2, 1), meta(1, 2, 0), *pages, leaf(depth, [(0, b"k", b"v")]))
    with opened(tmp_path / "db", data) as bolt:
        assert bolt.items() == {b"k": b"v"}


MADE = {"ID": "1" * 64, "Name": "/a", "Image": "i", "Driver": "overlay2", "Config": {"Image": "a"}}


def root_of(place: Path, config: dict, host: object, databases: dict[str, bytes] | None = None) -> DataRoot:
    """A data root with a container like this, and one that can be read."""
    files = {
        data_root._VOLUMES: buckets(b"volumes", of=[]),
        data_root._NETWORKS: buckets(b"libnetwork", of=[]),
        "containers/1/config.v2.json": json.dumps(config).encode(),
        "containers/1/hostconfig.json": json.dumps(host).encode(),
        "containers/2/config.v2.json": json.dumps({**MADE, "ID": "2" * 64, "Name": "/good"}).encode(),
        "containers/2/hostconfig.json": b'{"NetworkMode": "none"}',
        "image/overlay2/repositories.json": b'{"Repositories": {}}',
        **(databases or {}),
    }
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return DataRoot(str(place))


def test_a_data_root_of_remapped_users_is_named(tmp_path: Path):
    with root_of(tmp_path / "165536.165536", MADE, {}):
        pass
    with pytest.raises(FailedPrecondition) as raised:
        DataRoot(str(tmp_path))
    assert raised.value.hint.endswith(f"(one with --userns-remap: {tmp_path}/165536.165536)")


def test_a_container(tmp_path: Path):
    with root_of(tmp_path, MADE, {"NetworkMode": "none"}) as docker:
        assert {facts["Name"] for facts in docker.containers()} == {"/a", "/good"}
        assert docker.unreadable.reasons == {}


@pytest.mark.parametrize(
    ("config", "host"),
    [
        ({"Driver": 1}, {}),
        ({"ID": 1}, {}),
        ({"Config": {"Image": "a", "Labels": 5}}, {}),
        ({}, []),
        ({}, {"Binds": 1}),
        ({}, {"VolumesFrom": [None]}),
        ({"Config": None}, {}),
        ({"Config": {}}, {}),
        ({"Image": []}, {}),
        ({"Name": None}, {}),
        ({"NetworkSettings": {"Networks": {"n": None}}}, {}),
        ({"MountPoints": [1]}, {}),
    ],
)
def test_damaged_containers(tmp_path: Path, config: dict, host: object):
    with root_of(tmp_path, {**MADE, **config}, host) as docker:
        assert [facts["Name"] for facts in docker.containers()] == ["/good"]
        ((kind, _),) = docker.unreadable.reasons
        assert kind == CONTAINER


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'"text"', DEEP])
@pytest.mark.parametrize("name", ["config.v2.json", "hostconfig.json"])
def test_damaged_files_of_containers(tmp_path: Path, name: str, damaged: bytes):
    files = {f"containers/1/{name}": damaged}
    with root_of(tmp_path, MADE, {}, files) as docker:
        assert [facts["Name"] for facts in docker.containers()] == ["/good"]
        ((kind, _), reason), *more = docker.unreadable.reasons.items()
        assert kind == CONTAINER and "containers/1" in reason and not more


def volume(name: str) -> bytes:
    return json.dumps({"Name": name, "Driver": "local", "Labels": {"a": "b"}, "Options": None}).encode()


def network(name: str) -> bytes:
    return bytes(8) + json.dumps({"name": name, "id": name, "networkType": "bridge"}).encode()


WRONG = b'{"name": "n", "id": [], "networkType": "bridge", "Name": 1, "Driver": "local"}'
BAD = (b"", b"{", b"[]", WRONG, b"[" * 3000)


@pytest.mark.parametrize("damaged", BAD)
def test_damaged_records(tmp_path: Path, damaged: bytes):
    prefix = data_root._NETWORK
    databases = {
        data_root._VOLUMES: buckets(b"volumes", of=[(0, b"bad", damaged), (0, b"good", volume("good"))]),
        data_root._NETWORKS: buckets(
            b"libnetwork", of=[(0, prefix + b"bad", bytes(8) + damaged), (0, prefix + b"good", network("good"))]
        ),
    }
    (tmp_path / "volumes/bad/_data").mkdir(parents=True)
    with root_of(tmp_path, MADE, {}, databases) as docker:
        assert [facts["Name"] for facts in docker.volumes()] == ["good"]
        assert [facts["Name"] for facts in docker.networks()] == ["good"]
        assert set(docker.unreadable.reasons) == {(VOLUME, "bad"), (NETWORK, "bad")}


@pytest.mark.parametrize("damaged", [b"", b"no database", buckets(b"volumes", of=[])[:9000]])
def test_damaged_databases(tmp_path: Path, damaged: bytes):
    """Volumes are found by their directories then, without their labels."""
    (tmp_path / "volumes/plain/_data").mkdir(parents=True)
    (tmp_path / "volumes/no-volume").mkdir()
    (tmp_path / "volumes/shared/_data").mkdir(parents=True)
    options = {"MountType": "nfs", "MountOpts": "addr=10.0.0.9", "MountDevice": ":/x", "Quota": {"Size": 0}}
    (tmp_path / "volumes/shared/opts.json").write_text(json.dumps(options))
    (tmp_path / "volumes/odd/_data").mkdir(parents=True)
    (tmp_path / "volumes/odd/opts.json").write_text("[1]")
    with root_of(tmp_path, MADE, {}, {data_root._VOLUMES: damaged, data_root._NETWORKS: damaged}) as docker:
        found = {facts["Name"]: facts["Options"] for facts in docker.volumes()}
        assert found == {"plain": None, "shared": {"type": "nfs", "o": "addr=10.0.0.9", "device": ":/x"}}
        assert docker.networks() == []
        reasons = docker.unreadable.reasons
        files = {(kind, name.removeprefix(f"{tmp_path}/")) for kind, name in reasons}
        assert files == {(VOLUME, data_root._VOLUMES), (NETWORK, data_root._NETWORKS), (VOLUME, "odd")}
        assert len(docker.containers()) == 2


def test_odd_entries_among_volumes(tmp_path: Path):
    """A name that is none of Docker's, and a `_data` that is no directory."""
    (tmp_path / os.fsdecode(b"volumes/\xff/_data")).mkdir(parents=True)
    (tmp_path / "volumes/file").mkdir()
    (tmp_path / "volumes/file/_data").touch()
    records = [(0, b"file", volume("file")), (0, b"nul", volume("a\0b"))]
    with root_of(tmp_path, MADE, {}, {data_root._VOLUMES: buckets(b"volumes", of=records)}) as docker:
        assert "file" in {facts["Name"] for facts in docker.volumes()}
        assert docker.volume_sizes() == {}


def test_a_database_that_is_a_directory(tmp_path: Path):
    root_of(tmp_path, MADE, {}).__exit__()
    (tmp_path / data_root._VOLUMES).unlink()
    (tmp_path / data_root._VOLUMES).mkdir()
    with DataRoot(str(tmp_path)) as docker:
        assert [kind for kind, _name in docker.unreadable.reasons] == [VOLUME]


def test_a_data_root_that_may_not_be_listed(tmp_path: Path, monkeypatch):
    def refused(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(FailedPrecondition, match="no data root"):
        DataRoot(str(tmp_path))
