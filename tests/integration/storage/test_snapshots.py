"""Layers as overlay shows them: whiteouts, opaque directories and replaced kinds, as the image-spec has them."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import tarfile
from contextlib import contextmanager

import pytest

from ketch.errors import DataLoss
from ketch.images.archives.load import load as load_archive
from ketch.images.schema import SCHEMAS
from ketch.images.store import ImageStore
from ketch.linux.filesystems import fsflags
from ketch.oci import digest
from ketch.runtime.rootfs import overlay
from ketch.storage.database.db import Database
from ketch.storage.snapshots.overlay import OverlaySnapshots
from tests.support.programs import need


@pytest.fixture(params=["plain", "with:colon"])
def root(request, tmp_path):
    path = tmp_path / request.param
    path.mkdir()
    return str(path)


@pytest.fixture
def store(root):
    db = Database(os.path.join(root, "ketch.db"), SCHEMAS)
    yield ImageStore(db, root)
    db.close()


@pytest.fixture
def snapshots(root):
    return OverlaySnapshots(root)


def tar(members: dict[str, object]) -> bytes:
    """``name/`` → directory, bytes → file, str → symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, value in members.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mode = 0o755
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            elif isinstance(value, str):
                info.type, info.linkname = tarfile.SYMTYPE, value
            data = value if isinstance(value, bytes) else b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def image_of(store: ImageStore, *layers: dict[str, object]):
    """Load an archive with these layers, lowest first."""
    blobs = [tar(layer) for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest.of(b) for b in blobs]},
    }
    names = [f"{n}.tar" for n in range(len(blobs))]
    files = dict(zip(names, blobs, strict=True)) | {
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps([{"Config": "config.json", "Layers": names, "RepoTags": ["layered:1"]}]).encode(),
    }
    return load_archive(store, io.BytesIO(tar(files)), lambda _item: None)[0]


@contextmanager
def mounted(options: list[str]):
    fd = overlay.open_overlay(options)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def test_upper_layers_hide_replace_and_remove(store, snapshots):
    image = image_of(
        store,
        {
            "etc/": None,
            "etc/kept": b"1",
            "etc/gone": b"1",
            "cleared/": None,
            "cleared/old": b"1",
            "dir/": None,
            "dir/inside": b"1",
            "file": b"1",
            "link": "file",
        },
        {
            "etc/": None,
            "etc/.wh.gone": b"",
            "cleared/": None,
            "cleared/.wh..wh..opq": b"",
            "cleared/new": b"2",
            "dir": b"now a file",
            "file/": None,
            "file/inside": b"2",
        },
        {"etc/": None, "etc/gone": b"back", "link": "elsewhere"},
    )
    with mounted(snapshots.view(image.chain_ids)) as top:
        assert sorted(os.listdir(f"{top}/etc")) == ["gone", "kept"]
        with open(f"{top}/etc/gone", "rb") as f:
            assert f.read() == b"back"
        assert os.listdir(f"{top}/cleared") == ["new"]
        assert stat.S_ISREG(os.lstat(f"{top}/dir").st_mode)
        assert os.listdir(f"{top}/file") == ["inside"]
        assert os.readlink(f"{top}/link") == "elsewhere"
    with mounted(snapshots.view(image.chain_ids[:2])) as middle:
        assert os.listdir(f"{middle}/etc") == ["kept"]


def test_many_layers(store, snapshots):
    image = image_of(store, *({f"f{n}": b"%d" % n, "same": b"%d" % n} for n in range(60)))
    with mounted(snapshots.view(image.chain_ids)) as top:
        assert len(os.listdir(top)) == 61
        with open(f"{top}/same", "rb") as f:
            assert f.read() == b"59"


def test_a_container_writes_to_its_own_side_alone(store, snapshots):
    image = image_of(store, {"a": b"image"}, {"b": b"image"})
    mounts = snapshots.prepare("c1", image.chain_ids)
    assert [m["type"] for m in mounts] == ["overlay"]
    with mounted(mounts[0]["options"]) as top:
        with open(f"{top}/a", "wb") as f:
            f.write(b"changed")
        os.unlink(f"{top}/b")
    assert snapshots.usage("c1") == len(b"changed")
    with mounted(snapshots.mounts("c1", image.chain_ids)[0]["options"]) as again:
        assert os.listdir(again) == ["a"]
    with mounted(snapshots.view(image.chain_ids)) as untouched:
        assert sorted(os.listdir(untouched)) == ["a", "b"]
    snapshots.remove("c1")
    snapshots.remove("c1")
    assert snapshots.usage("c1") == 0


def test_a_missing_layer_is_said(store, snapshots):
    image = image_of(store, {"a": b"image"})
    snapshots.prepare("c1", image.chain_ids)
    store.layers.abort(store.layers.detach(image.chain_ids[0]))
    with pytest.raises(DataLoss, match="is missing"):
        snapshots.mounts("c1", image.chain_ids)


def test_layers_are_spread_over_the_disk_where_it_can_be_said(store, root):
    layers = os.path.join(root, "layers")
    known = fsflags.spread(layers)
    assert fsflags.spread(layers) is known, "once more changes nothing"
    assert fsflags.spread("/proc") is False
    if known:
        shown = subprocess.run([need("lsattr"), "-d", layers], check=True, capture_output=True, text=True).stdout
        assert "T" in shown.split()[0]
