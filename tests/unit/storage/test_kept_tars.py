"""Tars that are kept for the next layer: the same bytes as without them, and only as long as they can be."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.storage.archive.write import TreeWriter
from ketch.storage.layers import kept_tars, tars
from ketch.storage.layers.store import Layers, built_name
from tests.support.builds.layer_trees import ENTRY, make, written


@pytest.fixture
def few(monkeypatch):
    """Layers of a few files count as those of many."""
    monkeypatch.setattr(kept_tars, "_LEAST_FILES", 1)


class Box:
    """Layers below a directory."""

    def __init__(self, root):
        self.layers = Layers(str(root))
        self.opened = 0

    def layer(self, fill, former=None):
        """A layer, with the files of a former one as hard links, and what a function makes of them."""
        path = self.layers.begin()
        files = self.layers.files(path)
        if former is not None:
            subprocess.run(["cp", "-al", f"{self.layers.diff(former)}/.", files], check=True)
        fill(files)
        name = built_name()
        self.layers.commit_built(path, name)
        return name

    def written(self, layer):
        """The layer's tar, as one is written that may be kept."""
        out = io.BytesIO()
        fd = os.open(self.layers.diff(layer), os.O_RDONLY)
        try:
            self.layers.kept_tars.write(layer, fd, out.write)
        finally:
            os.close(fd)
        return out.getvalue()

    def kept(self, layer):
        return os.path.exists(os.path.join(self.layers.path(layer), "tar.kept"))


@pytest.fixture
def box(tmp_path, monkeypatch):
    one = Box(tmp_path)
    regular = TreeWriter._regular

    def counted(*args):
        one.opened += 1
        return regular(*args)

    monkeypatch.setattr(TreeWriter, "_regular", counted)
    return one


def put(root, name, text="", mtime_ns=10**18 + 7):
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8") as f:
        f.write(text)
    os.utime(f"{path}.new", ns=(mtime_ns, mtime_ns))
    os.rename(f"{path}.new", path)


def numbered(root):
    for number in range(40):
        put(root, f"d{number % 4}/f{number}", f"{number}" * 50)


def test_only_what_changed_is_read(box, few):
    first = box.layer(numbered)
    assert box.written(first) == written(box.layers.diff(first))
    box.opened = 0
    second = box.layer(lambda root: put(root, "d2/f6", "changed"), first)
    data = box.written(second)
    assert box.opened == 1
    assert data == written(box.layers.diff(second))
    box.opened = 0
    third = box.layer(lambda root: os.unlink(f"{root}/d1/f1"), second)  # from a tar that was made of another one
    data = box.written(third)
    assert box.opened == 0
    assert data == written(box.layers.diff(third))


def test_facts_are_the_same(box, few):
    first = box.layer(numbered)
    tars.facts(box.layers, first)
    assert box.kept(first)
    second = box.layer(lambda root: put(root, "d3/new", "x"), first)
    facts = tars.facts(box.layers, second)
    out = io.BytesIO()
    tars.write(box.layers, second, facts.diff_id, out.write)  # DataLoss, if it were another
    assert facts.size == len(out.getvalue())
    assert facts.files == sum(len(f"{n}" * 50) for n in range(40)) + 1


@pytest.mark.parametrize(
    "change",
    [
        lambda root: os.link(f"{root}/d0/f0", f"{root}/a-first-name"),
        lambda root: os.link(f"{root}/d0/f0", f"{root}/z-last-name"),
        lambda root: os.rename(f"{root}/d0/f0", f"{root}/d0/moved"),
        lambda root: (os.rename(f"{root}/d0/f0", f"{root}/x"), os.rename(f"{root}/d0/f4", f"{root}/d0/f0")),
        lambda root: os.rename(f"{root}/d0", f"{root}/other"),
        lambda root: (os.unlink(f"{root}/d0/f0"), os.symlink("f4", f"{root}/d0/f0")),
        lambda root: (os.unlink(f"{root}/d0/f0"), os.mkdir(f"{root}/d0/f0"), put(root, "d0/f0/in", "it")),
        lambda root: (os.unlink(f"{root}/d0/f0"), os.mknod(f"{root}/d0/f0", 0o20000, 0)),
        lambda root: shutil.rmtree(f"{root}/d0"),
        lambda root: os.chmod(f"{root}/d0", 0o700),
        lambda root: put(root, "d0/f0", "0" * 50),  # the same size and time, but another file
        lambda root: put(root, "d0/f0", "x" * (1 << 20)),
    ],
)
def test_every_change_is_in_the_tar(box, few, change):
    first = box.layer(lambda root: (numbered(root), os.link(f"{root}/d1/f1", f"{root}/d3/second")))
    box.written(first)
    second = box.layer(change, first)
    assert box.written(second) == written(box.layers.diff(second))


def test_the_first_of_several_names_goes(box, few):
    first = box.layer(lambda root: (numbered(root), os.link(f"{root}/d1/f1", f"{root}/d3/second")))
    box.written(first)
    second = box.layer(lambda root: os.unlink(f"{root}/d1/f1"), first)
    assert box.written(second) == written(box.layers.diff(second))


def test_a_layer_that_is_gone_has_no_say(box, few):
    """Its inodes may be other files' by now."""
    first = box.layer(numbered)
    box.written(first)
    second = box.layer(lambda _root: None, first)
    box.layers.abort(box.layers.detach(first))
    box.opened = 0
    assert box.written(second) == written(box.layers.diff(second))
    assert box.opened >= 40
    assert list(box.layers.kept_tars._known()) == [second]


def test_what_another_run_of_the_machine_has_left_does_not_count(box, few, monkeypatch):
    first = box.layer(numbered)
    with monkeypatch.context() as patched:
        patched.setattr(kept_tars, "boot_id", lambda: "another")
        box.written(first)
    second = box.layer(lambda _root: None, first)
    box.opened = 0
    box.written(second)
    assert box.opened == 40
    third = box.layer(lambda _root: None, second)
    box.opened = 0
    box.written(third)
    assert box.opened == 0


@pytest.mark.parametrize(
    "left",
    [b"", bytes(4096), b"\xff" * 4096, b"\x93" * 100 + (100).to_bytes(8, "big"), "half", "no end"],
    ids=["empty", "zeros", "ones", "garbage", "half", "no end"],
)
def test_what_a_power_cut_has_left_does_not_count(box, few, left):
    """It is not brought to the disk before it has its name."""
    first = box.layer(numbered)
    box.written(first)
    path = f"{box.layers.path(first)}/tar.kept"
    with open(path, "rb") as file:
        whole = file.read()
    with open(path, "wb") as file:
        file.write({"half": whole[: len(whole) // 2], "no end": whole[:-3]}.get(left, left))
    second = box.layer(lambda root: put(root, "new"), first)
    assert box.written(second) == written(box.layers.diff(second))


def test_it_counts_after_a_restart_of_the_daemon(box, few, tmp_path):
    first = box.layer(numbered)
    box.written(first)
    box.layers = Layers(str(tmp_path))
    second = box.layer(lambda root: put(root, "new"), first)
    box.opened = 0
    box.written(second)
    assert box.opened == 1


def test_layers_of_few_or_large_files_keep_none(box, monkeypatch):
    few = box.layer(numbered)
    box.written(few)
    assert not box.kept(few)
    monkeypatch.setattr(kept_tars, "_LEAST_FILES", 1)
    monkeypatch.setattr(kept_tars, "_FREE", 1 << 20)
    large = box.layer(lambda root: (numbered(root), put(root, "large", "x" * (4 << 20))))
    assert box.written(large) == written(box.layers.diff(large))
    assert sorted(os.listdir(box.layers.path(large))) == ["diff"]


def test_the_oldest_go(box, few, monkeypatch):
    first = box.layer(numbered)
    size = len(box.written(first))
    monkeypatch.setattr(kept_tars, "_MOST_BYTES", 5 * size)
    others = [box.layer(lambda root: put(root, "new"), first) for _ in range(5)]
    for one in others:
        box.written(one)
    assert [box.kept(one) for one in (first, *others)] == [False, False, True, True, True, True]


def test_a_full_disk_is_no_error(box, few, monkeypatch):
    first = box.layer(numbered)
    real = os.write

    def full(fd, data):
        if "tar.kept" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    assert box.written(first) == written(box.layers.diff(first))
    assert os.listdir(box.layers.path(first)) == ["diff"]


CHANGES = st.lists(st.tuples(st.sampled_from(["remove", "replace", "link", "move"]), st.integers(0, 50)), max_size=6)


def changed(root, changes):
    """Change some files of a tree, which are links of others'."""
    for number, (kind, which) in enumerate(changes):
        files = sorted(os.path.join(where, name) for where, _, names in os.walk(root) for name in names)
        if not files:
            return
        path, new = files[which % len(files)], os.path.join(root, b"%d" % number)
        if kind in ("remove", "replace"):
            os.unlink(path)
        if kind == "replace":
            with open(path, "wb") as f:
                f.write(b"%d" % number)
        elif kind == "link" and not os.path.lexists(new):
            os.link(path, new, follow_symlinks=False)
        elif kind == "move":
            os.rename(path, new)


@settings(max_examples=80, deadline=None)
@given(st.lists(ENTRY, min_size=1, max_size=12), CHANGES, CHANGES)
def test_any_layer_after_any_other(entries, first, second):
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patched:
        patched.setattr(kept_tars, "_LEAST_FILES", 1)
        box, layer = Box(root), None
        fills = (
            lambda top: make(os.fsencode(top), entries),
            lambda top: changed(os.fsencode(top), first),
            lambda top: changed(os.fsencode(top), second),
        )
        for fill in fills:
            layer = box.layer(fill, layer)
            assert box.written(layer) == written(box.layers.diff(layer))
