"""`-v` and `--mount` as users write them."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.model.records import ContainerConfig, HostConfig, Mount, TmpfsOptions
from ketch.engine.volumes import mount_plan, mount_spec
from ketch.engine.volumes.store import SCHEMA, VolumeStore
from ketch.errors import Conflict, InvalidArgument, KetchError, NotFound
from ketch.storage.database.db import Database


@pytest.fixture
def volumes(tmp_path):
    db = Database(str(tmp_path / "ketch.db"), [SCHEMA])
    yield VolumeStore(db, str(tmp_path), lambda _name: [])
    db.close()


@pytest.mark.parametrize(
    ("spec", "kind", "name", "source", "target", "rw"),
    [
        ("/srv:/data", "bind", "", "/srv", "/data", True),
        ("/srv/:/data/:ro", "bind", "", "/srv", "/data", False),
        ("/srv:/data:ro,z", "bind", "", "/srv", "/data", False),
        ("cache:/data", "volume", "cache", "", "/data", True),
        ("/data", "volume", "", "", "/data", True),
        ("/a/../b:/c/./d:rw", "bind", "", "/b", "/c/d", True),
    ],
)
def test_bind_forms(spec, kind, name, source, target, rw):
    point = mount_spec.parse_bind(spec)
    assert (point.type, point.name, point.source, point.destination, point.rw) == (kind, name, source, target, rw)


@pytest.mark.parametrize("spec", ["", ":", "a:", ":/b", "a:b:c:d", "/a:b", "/a:/", "/a:/b:rw,ro", "/a:/b:sometimes"])
def test_bad_binds_are_refused(spec):
    with pytest.raises(InvalidArgument):
        mount_spec.parse_bind(spec)


@given(st.text(max_size=40))
def test_no_text_breaks_the_parser(spec):
    try:
        point = mount_spec.parse_bind(spec)
    except InvalidArgument:
        return
    assert point.destination.startswith("/")
    assert point.destination != "/"
    assert "/../" not in point.destination + "/"


def test_volumes_are_made_once_and_parents_come_first(volumes):
    host = HostConfig(binds=["data:/a/b", "/tmp:/a"])
    points = mount_plan.MountPlanner(volumes).plan(ContainerConfig(volumes={"/anon": {}}), host)
    assert [p.destination for p in points] == ["/a", "/anon", "/a/b"]
    assert os.path.isdir(volumes.get("data").mountpoint)
    anonymous = next(p for p in points if p.destination == "/anon")
    assert volumes.get(anonymous.name).anonymous
    again = mount_plan.MountPlanner(volumes).plan(ContainerConfig(), HostConfig(binds=["data:/x"]))
    assert again[0].source == volumes.get("data").mountpoint


def test_same_target_twice_is_refused(volumes):
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /x"):
        mount_plan.MountPlanner(volumes).plan(ContainerConfig(), HostConfig(binds=["a:/x", "b:/x"]))


def test_mount_bind_needs_its_source_and_v_makes_it(volumes, tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(InvalidArgument, match="bind source path does not exist"):
        mount_plan.MountPlanner(volumes).plan(
            ContainerConfig(), HostConfig(mounts=[Mount(type="bind", source=missing, target="/x")])
        )
    planned = mount_plan.MountPlanner(volumes).plan(ContainerConfig(), HostConfig(binds=[f"{missing}:/x"]))
    assert not os.path.exists(missing)
    mount_plan.make_sources(planned)
    assert os.path.isdir(missing)


def test_oci_options():
    host = HostConfig(
        mounts=[Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=1024, mode=0o700))],
        tmpfs={"/run": "size=64m,exec"},
    )
    points = [mount_spec.parse_bind("/srv:/data:ro,rslave"), mount_spec.of_mount(host.mounts[0])]
    by_target = {m["destination"]: m for m in mount_plan.oci_mounts(points, host)}
    assert by_target["/data"]["options"] == ["rbind", "rro", "rslave"]
    assert {"size=1024", "mode=700"} <= set(by_target["/t"]["options"])
    assert "exec" in by_target["/run"]["options"]
    assert "noexec" not in by_target["/run"]["options"]


async def test_a_volume_of_a_container_that_is_being_created_stays(tmp_path):
    rows: list[str] = []
    db = Database(str(tmp_path / "ketch.db"), [SCHEMA])
    store = VolumeStore(db, str(tmp_path), lambda _name: rows)
    store.create("kept")
    store.create("kept", made_for="one")
    store.create("fresh", made_for="one")
    for name in ("kept", "fresh"):
        assert store.used_by(name) == ["one"]
        with pytest.raises(Conflict, match="volume is in use - \\[one\\]"):
            await store.remove(name)
    await store.discard("one")
    assert store.has("kept") and not store.has("fresh")
    store.create("kept", made_for="two")
    rows.append("two")
    assert store.used_by("kept") == ["two"]
    with store.made(["kept"], "two"):
        pass
    rows.clear()
    await store.remove("kept")
    assert not store.has("kept")
    db.close()


async def test_volume_removal(tmp_path):
    users = ["c1"]
    db = Database(str(tmp_path / "ketch.db"), [SCHEMA])
    store = VolumeStore(db, str(tmp_path), lambda _name: users)
    volume = store.create("data", labels={"a": "b"})
    with pytest.raises(Conflict, match="volume is in use"):
        await store.remove("data")
    users.clear()
    await store.remove("data")
    assert not os.path.exists(os.path.dirname(volume.mountpoint))
    with pytest.raises(NotFound):
        store.get("data")
    with pytest.raises(KetchError, match="invalid characters"):
        store.create("../escape")
    db.close()


def test_volumes_survive_reopening(tmp_path):
    path = str(tmp_path / "ketch.db")
    db = Database(path, [SCHEMA])
    VolumeStore(db, str(tmp_path), lambda _name: []).create("kept", labels={"k": "v"})
    db.close()
    db = Database(path, [SCHEMA])
    assert VolumeStore(db, str(tmp_path), lambda _name: []).get("kept").labels == {"k": "v"}
    db.close()
