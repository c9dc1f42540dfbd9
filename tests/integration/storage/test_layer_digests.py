"""The digest of a layer that Ketch compresses: the same by import, commit and push, whichever Python runs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from ketch.images.archives.bootstrap import _busybox_tar
from ketch.images.archives.compressed import compressed
from ketch.images.archives.importer import import_rootfs
from ketch.images.archives.load import load as load_archive
from ketch.images.commit import commit
from ketch.images.schema import SCHEMAS
from ketch.images.store import ImageStore
from ketch.oci.config import History, RunConfig
from ketch.storage.archive.write import write_tree
from ketch.storage.database.db import Database

_TAR = "197c46496e7390e02e665d4997b0c15ca3bb2a5789d0a9cacd35d08715e52aa1"
_TREE_TAR = "c094a7982464a4c69cd44dd4710aa54046d628f15703de50a8c60bf187d1d83e"
_TREE_LAYER = "sha256:a2311790bd05b7ca434f4bf0122ef07ff3b0ccd7e2d4128835f96e4e61c967ca"
_TREE_BLOB = "sha256:3f615adaa7e33e7a81d358b5547341c3c5132d106d14b7d1738a124cae0f96d9"
_BLOB = "sha256:35924ff4ef963a54bab1c9a545a558823ef8ba053066d79747211a2553599580"


@pytest.fixture
def store(tmp_path):
    db = Database(str(tmp_path / "ketch.db"), SCHEMAS)
    yield ImageStore(db, str(tmp_path))
    db.close()


def known_layer() -> bytes:
    """A tar of 300 files, none of them like another."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(300):
            info = tarfile.TarInfo(f"file-{number}")
            content = hashlib.sha256(b"%d" % number).digest() * (number % 97) + b"some text\n" * number
            info.size, info.mtime = len(content), 1_700_000_000
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def saved(layer: bytes) -> bytes:
    """A ``docker save`` archive of an image with that layer, uncompressed as Docker writes it."""
    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    manifest = [{"Config": "config.json", "RepoTags": ["known:saved"], "Layers": ["layer.tar"]}]
    members = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def make_tree(directory: str) -> None:
    """A tree with all that a header can say."""
    root = Path(directory)
    (root / "d").mkdir()
    for name in ("d/file", "d/" + "long" * 40, "d/ünï"):
        (root / name).write_bytes(name.encode() * 1000)
        (root / name).chmod(0o640)
    os.setxattr(root / "d" / "file", "trusted.note", b"\0binary\xff")
    os.link(root / "d" / "file", root / "hard")
    (root / "link").symlink_to("d/file")
    os.mkfifo(root / "pipe", 0o600)
    os.mknod(root / "device", 0o020600, os.makedev(1, 3))
    for place, directories, files in os.walk(root, topdown=False):
        for path in [os.path.join(place, name) for name in (*directories, *files)]:
            os.chown(path, 3_000_000, 5, follow_symlinks=False)
            os.utime(path, ns=(0, 1_700_000_000_123_456_789), follow_symlinks=False)
    (root / "d").chmod(0o2755)
    root.chmod(0o755)
    os.utime(root, ns=(0, 1_600_000_000_000_000_000))


def test_the_layer_is_what_it_was():
    assert hashlib.sha256(known_layer()).hexdigest() == _TAR


def test_import(store):
    assert import_rootfs(store, io.BytesIO(known_layer()), name="known").blobs == [_BLOB]


def test_commit(store):
    """The layer has no blob; its diff id is that of its files."""
    parent = import_rootfs(store, io.BytesIO(bytes(10240)), name="empty")
    image = commit(store, parent, RunConfig(), make_tree, step=History())
    assert image.diff_ids[-1] == image.blobs[-1] == _TREE_LAYER
    assert not store.content.exists(_TREE_LAYER)
    with store.lease() as lease:
        better = compressed(store, lease, image, image.manifest, lambda _item: None)
        assert better is not None
        assert better.blobs == [parent.blobs[0], _TREE_BLOB]


def test_push(store):
    """What a registry gets of an archive's plain layer, and what a save holds from then on."""
    [image] = load_archive(store, io.BytesIO(saved(known_layer())), lambda _item: None)
    with store.lease() as lease:
        better = compressed(store, lease, image, image.manifest, lambda _item: None)
    assert better is not None
    assert better.blobs == [_BLOB]


def test_the_tar_of_busybox_is_what_it_was():
    """The image made from the machine's busybox has no other digest by another Python's tarfile."""
    made = _busybox_tar(b"program", ["ls", "sh"], 1_700_000_000)
    assert hashlib.sha256(made).hexdigest() == "4ce0b855186f7270b7d73a918f4bf9c55f75ebc934c2c9a2b7c9b378792ff1fd"


def test_the_tar_of_a_tree_is_what_it_was(tmp_path):
    """What export writes is the same by every Python."""
    make_tree(str(tmp_path))
    buffer = io.BytesIO()
    write_tree(str(tmp_path), buffer)
    assert hashlib.sha256(buffer.getvalue()).hexdigest() == _TREE_TAR
