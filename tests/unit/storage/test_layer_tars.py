"""Tars of layers: the same bytes each time, of every kind of file, and what is unpacked from them gives them again."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.errors import DataLoss, InvalidArgument
from ketch.storage.archive import pax, tar
from ketch.storage.archive.extract import extract
from ketch.storage.byte_copy import ByteCopier
from ketch.storage.layers import tars
from ketch.storage.layers.store import Layers, built_name
from ketch.storage.removal import remove_tree
from ketch.storage.snapshots import layer_copy
from tests.support.builds.layer_trees import ENTRY, make, written


def census(root: bytes) -> dict[bytes, tuple]:
    """All that a layer says of its files, but for the times of whiteouts and of the root; hard links by first name."""
    found: dict[bytes, tuple] = {}
    first: dict[int, bytes] = {}
    for place, directories, files in os.walk(root):
        for path in sorted(os.path.join(place, n) for n in (*directories, *files)):
            s = os.lstat(path)
            shown = path[len(root) :]
            if stat.S_ISSOCK(s.st_mode):
                continue
            if stat.S_ISCHR(s.st_mode) and not s.st_rdev:
                found[shown] = ("whiteout",)
                continue
            content: object = None
            if stat.S_ISREG(s.st_mode):
                with open(path, "rb") as f:
                    content = hashlib.sha256(f.read()).hexdigest(), first.setdefault(s.st_ino, shown)
            elif stat.S_ISLNK(s.st_mode):
                content = os.readlink(path)
            kept = {}
            if not stat.S_ISLNK(s.st_mode):
                kept = {n: os.getxattr(path, n) for n in os.listxattr(path)}
            kept = {n: v for n, v in kept.items() if n == "trusted.overlay.opaque" or not n.startswith("trusted.")}
            found[shown] = (s.st_mode, s.st_uid, s.st_gid, s.st_rdev, s.st_mtime_ns, content, kept)
    return found


def without_trusted(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An archive must not speak for the file system's own attributes: they are not unpacked."""
    return [{**e, "xattrs": {k: v for k, v in e["xattrs"].items() if k != "trusted.t"}} for e in entries]


@settings(max_examples=60, deadline=None)
@given(st.lists(ENTRY, max_size=14))
def test_every_kind_of_file_there_and_back(entries):
    """The tar of a copy, and of what is unpacked from it, is the same; and so are the files."""
    base = tempfile.mkdtemp(prefix="kt-layer-").encode()
    try:
        layer, copied, back = (os.path.join(base, n) for n in (b"layer", b"copied", b"back"))
        for directory in (layer, copied, back):
            os.mkdir(directory)
        make(layer, without_trusted(entries))
        data = written(layer)
        assert written(layer) == data
        fd = os.open(layer, os.O_RDONLY | os.O_DIRECTORY)
        facts = layer_copy.copy(fd, os.fsdecode(copied))
        os.close(fd)
        if facts is not None:  # the files are so new that it cannot tell whether they have changed meanwhile
            assert facts.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
            assert facts.size == len(data)
        assert written(copied) == data
        assert census(copied) == census(layer)
        extract(io.BytesIO(data), os.fsdecode(back))
        assert census(back) == census(layer)
        assert written(back) == data
        with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
            theirs = [(m.name, m.size, m.uid, m.gid, m.mode) for m in archive]
        reader = tar.TarReader(io.BytesIO(data))
        ours = [
            (m.name.rstrip("/") if m.kind == tar.DIRECTORY else m.name, m.size, m.uid, m.gid, m.mode) for m in reader
        ]
        assert ours == theirs
    finally:
        remove_tree(os.fsdecode(base))


@given(
    st.binary(min_size=1, max_size=300).filter(lambda n: b"\0" not in n and not n.endswith(b"/")),
    st.integers(-(2**70), 2**70),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**62),
    st.dictionaries(st.sampled_from([b"user.x", b"user.y"]), st.binary(max_size=2000)),
)
def test_headers_are_read_as_they_were_meant(path, time, owner, size, xattrs):
    data = pax.header(pax.LINK, path, (0o644, owner, 7, 0, time), path, xattrs=sorted(xattrs.items()))
    [member] = tar.TarReader(io.BytesIO(data + pax.END))
    assert (member.name.encode("utf-8", "surrogateescape"), member.linkname) == (path, member.name)
    assert (member.mtime_ns, member.uid, member.gid, member.mode) == (time, owner, 7, 0o644)
    assert {k.encode(): v for k, v in (member.xattrs or {}).items()} == xattrs
    sized = pax.header(pax.FILE, b"f", (0o644, 0, 0, size, 0))
    info = tarfile.TarInfo.frombuf(sized[-512:], "utf-8", "strict")
    assert info.size in (size, 0)
    assert (b" size=%d\n" % size in sized) == (info.size != size)


def test_other_programs_read_it(tmp_path):
    """GNU tar finds in it what is there."""
    layer, back = os.fsencode(tmp_path / "layer"), os.fsencode(tmp_path / "back")
    os.mkdir(layer)
    os.mkdir(back)
    base = {
        "mode": 0o640,
        "owner": (2**31, 5),
        "time": -1_500_000_000,
        "data": b"x" * 700,
        "device": (1, 3),
        "xattrs": {},
    }
    names = {
        "file": b"\xffile",
        "hard": b"h" * 150,
        "symlink": b"link",
        "fifo": b"pipe",
        "char": b"c",
        "directory": b"d",
    }
    make(layer, [{**base, "kind": kind, "name": n, "parent": 0} for kind, n in names.items()])
    subprocess.run(["tar", "-x", "-p", "-C", os.fsdecode(back)], input=written(layer), check=True)
    assert census(back) == census(layer)


def test_a_file_that_changes_while_it_is_copied(tmp_path, monkeypatch):
    """The copy is whole; the digest of its tar is known when nothing can have changed."""
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "large").write_bytes(b"x" * 200_000)
    (upper / "small").write_bytes(b"s")
    fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY)
    copy = ByteCopier.copy

    def copied(name: str) -> tars.TarFacts | None:
        (tmp_path / name).mkdir()
        return layer_copy.copy(fd, str(tmp_path / name))

    def changing(copier: ByteCopier, from_fd: int, to_fd: int, status: os.stat_result) -> None:
        with open(upper / "large", "ab") as f:
            f.write(b"y")
        copy(copier, from_fd, to_fd, status)

    assert copied("a moment ago") is None  # it may change again without another time
    monkeypatch.setattr(layer_copy, "_TICK_NS", 0)
    facts = copied("still")
    assert facts is not None
    assert facts.diff_id == "sha256:" + hashlib.sha256(written(os.fsencode(tmp_path / "still"))).hexdigest()
    monkeypatch.setattr(ByteCopier, "copy", changing)
    assert copied("changed") is None
    os.close(fd)
    assert census(os.fsencode(tmp_path / "still")).keys() == census(os.fsencode(tmp_path / "changed")).keys()


@pytest.fixture
def layers(tmp_path):
    return Layers(str(tmp_path))


def test_facts_are_found_out_once_and_bytes_compared(layers):
    path = layers.begin()
    with open(os.path.join(layers.files(path), "f"), "wb") as f:
        f.write(b"content")
    layer = built_name()
    layers.commit_built(path, layer)
    assert tars.known(layers, layer) is None
    facts = tars.facts(layers, layer)
    assert facts == tars.known(layers, layer)
    assert facts.files == 7
    buffer = io.BytesIO()
    tars.write(layers, layer, facts.diff_id, buffer.write)
    assert "sha256:" + hashlib.sha256(buffer.getvalue()).hexdigest() == facts.diff_id
    assert len(buffer.getvalue()) == facts.size
    with open(os.path.join(layers.diff(layer), "f"), "wb") as f:
        f.write(b"damaged")
    assert tars.facts(layers, layer) == facts
    with pytest.raises(DataLoss, match="are not those that it was made of"):
        tars.write(layers, layer, facts.diff_id, buffer.write)
    layers.abort(layers.detach(layer))
    with pytest.raises(DataLoss, match="a layer of the image is missing"):
        tars.write(layers, layer, facts.diff_id, buffer.write)
    assert tars.known(layers, layer) is None


def test_what_a_tar_cannot_have(tmp_path):
    layer = os.fsencode(tmp_path)
    (tmp_path / "f").touch()
    os.setxattr(tmp_path / "f", "user.a=b", b"")
    with pytest.raises(InvalidArgument, match="archive `f`: the name of an extended attribute has an equals sign"):
        written(layer)
    (tmp_path / "f").unlink()
    (tmp_path / ".wh.f").touch()
    with pytest.raises(InvalidArgument, match="means a removed file"):
        written(layer)
