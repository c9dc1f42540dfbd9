"""Layers that were made here: written, stacked with others, linked into images' chains, collected."""

from __future__ import annotations

import os
import secrets

import pytest

from ketch.build.tree import EMPTY, Tree
from ketch.daemon.recovery import lost_objects
from ketch.engine.build.snapshots import EngineBuildSnapshots
from ketch.errors import DataLoss
from ketch.images.schema import SCHEMAS
from ketch.images.store import ImageStore
from ketch.storage.database.db import Database
from ketch.storage.snapshots.overlay import OverlaySnapshots
from ketch.storage.snapshots.vfs import VfsSnapshots


class Machine:
    """An image store with its snapshots, which can be started again; ``cached`` is what a build cache needs."""

    def __init__(self, root: str, driver: type) -> None:
        self.root, self._driver = root, driver
        self.cached: set[str] = set()
        self.start()

    def start(self) -> None:
        self.db = Database(os.path.join(self.root, "ketch.db"), SCHEMAS)
        self.store = ImageStore(self.db, self.root, others=lambda: self.cached)
        self.snapshots = self._driver(self.root)
        self.builds = EngineBuildSnapshots(self.store, self.snapshots)

    def stop(self) -> None:
        self.store.close()
        self.db.close()

    def layer(self, lease, **files: str) -> str:
        """A layer with these files."""
        draft = self.builds.begin(lease)
        for name, text in files.items():
            with open(os.path.join(draft.directory, name), "w", encoding="utf-8") as f:
                f.write(text)
        return draft.commit()

    def here(self) -> set[str]:
        return set(os.listdir(os.path.join(self.root, "layers")))

    def shown(self, *layers: str) -> dict[str, str]:
        """Names and texts of the files of a tree."""
        with self.builds.opened(Tree(layers)) as fd:
            return {name: read(name, fd) for name in sorted(os.listdir(fd))}


def read(name: str, dir_fd: int) -> str:
    fd = os.open(name, os.O_RDONLY, dir_fd=dir_fd)
    with os.fdopen(fd, encoding="utf-8") as f:
        return f.read()


def chain() -> str:
    return "sha256:" + secrets.token_hex(32)


@pytest.fixture(params=[OverlaySnapshots, VfsSnapshots])
def machine(request, tmp_path):
    machine = Machine(str(tmp_path), request.param)
    yield machine
    machine.stop()


def test_trees_of_both_kinds_of_layers(machine):
    before = os.listdir("/proc/self/fd")
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        mounts = f.read()
    with machine.builds.lease() as lease:
        low, high = machine.layer(lease, a="low", b="low"), machine.layer(lease, a="high")
        name = chain()
        lease.hold(name)
        machine.store.layers.link(name, low)
        assert machine.builds.exists(name)
        assert machine.shown(low, high) == machine.shown(name, high) == {"a": "high", "b": "low"}
        assert machine.shown(high, name) == {"a": "low", "b": "low"}
        assert machine.shown(high, name, low) == machine.shown(low, high, name) == {"a": "low", "b": "low"}
        assert machine.shown(low) == {"a": "low", "b": "low"}
        assert machine.shown() == {}
        assert machine.builds.size(low) == 6
        assert machine.builds.directory(name) == os.path.join(machine.root, "layers", name[7:], "diff")
        with machine.builds.opened(Tree((low, high))) as fd, pytest.raises(OSError, match="Read-only"):
            os.mkdir("new", dir_fd=fd)
        with machine.builds.opened(EMPTY) as fd, pytest.raises(FileNotFoundError):
            os.mkdir("new", dir_fd=fd)
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            assert f.read() == mounts
        with pytest.raises(DataLoss, match="a layer of the image is missing"):
            machine.shown(low, chain())
        machine.builds.sync([low, high])
    assert os.listdir("/proc/self/fd") == before
    assert machine.here() == set()


def test_a_container_on_both_kinds(machine):
    with machine.builds.lease() as lease:
        layers = [machine.layer(lease, a="low"), machine.layer(lease, b="high")]
        machine.snapshots.prepare("c" * 64, layers)
        assert machine.snapshots.mounts("c" * 64, layers)
        with machine.snapshots.delta("c" * 64) as changes:
            assert os.listdir(changes) == []


def test_drafts(machine):
    with machine.builds.lease() as lease:
        draft = machine.builds.begin(lease)
        os.makedirs(os.path.join(draft.work, "work"), mode=0)
        os.chmod(draft.directory, 0o700)
        os.chown(draft.directory, 7, 7)
        layer = draft.commit()
        draft.abort()
        status = os.stat(machine.builds.directory(layer))
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o755, 0, 0)
        assert os.listdir(os.path.join(machine.root, "layers", layer)) == ["diff"]
        dropped = machine.builds.begin(lease)
        dropped.abort()
        assert machine.here() == {layer}
    assert machine.here() == set()


def test_what_needs_a_layer_keeps_it(machine):
    """A lease, a build cache, and links of chains that are needed: the last one's end removes it."""
    first, second = chain(), chain()
    with machine.builds.lease() as lease:
        layer = machine.layer(lease, a="x")
        machine.cached = {layer, first}
    with machine.builds.lease() as lease:
        lease.hold(first, second)
        for name in (first, second, first):
            machine.store.layers.link(name, layer)
        machine.store.layers.link(first, first)
    assert machine.here() == {layer, first[7:]}
    assert os.readlink(os.path.join(machine.root, "layers", first[7:])) == layer
    machine.stop()
    machine.start()
    assert machine.here() == {layer, first[7:]}
    machine.cached = {first}
    with machine.builds.lease() as lease:
        lease.hold(layer)
    assert machine.shown(first) == {"a": "x"}
    machine.cached = set()
    with machine.builds.lease() as lease:
        lease.hold(first)
    assert machine.here() == set()


def test_a_layer_of_an_image_in_another_stack(machine):
    """The layer itself stays as long as the link to it."""
    own, other = chain(), chain()
    with machine.builds.lease() as lease:
        lease.hold(own, other)
        path = machine.store.layers.begin()
        machine.store.layers.commit(path, own)
        machine.cached = {other}
        machine.store.layers.link(other, own)
    assert machine.here() == {own[7:], other[7:]}
    machine.stop()
    machine.start()
    assert machine.here() == {own[7:], other[7:]}
    machine.cached = set()
    with machine.builds.lease() as lease:
        lease.hold(other)
    assert machine.here() == set()


def test_a_link_that_leads_nowhere_is_replaced(machine):
    name = chain()
    with machine.builds.lease() as lease:
        lease.hold(name)
        layers = machine.store.layers
        for makes in (layers.link, lambda name, _layer: layers.commit(layers.begin(), name)):
            os.symlink("built-" + "0" * 32, layers.path(name))
            assert not layers.exists(name)
            makes(name, machine.layer(lease))
            assert layers.exists(name)
            layers.abort(layers.detach(name))
        layers.link(name, machine.layer(lease, a="x"))
        layers.commit(layers.begin(), name)
        assert machine.shown(name) == {"a": "x"}


def test_what_a_start_finds(machine):
    """Half-written layers, layers in nothing, and those of images whose rows are lost."""
    with machine.builds.lease() as lease:
        nobody, lost, cached = (machine.layer(lease, a=name) for name in ("nobody", "lost", "cached"))
        machine.cached = {nobody, lost, cached}
    name = chain()
    machine.store.layers.link(name, lost)
    machine.store.layers.begin()
    machine.stop()
    machine.cached = {cached}
    machine.start()
    assert machine.here() == {cached}
    (start,) = os.listdir(os.path.join(machine.root, "lost"))
    kept = os.path.join(machine.root, "lost", start, "layers")
    assert set(os.listdir(kept)) == {lost, name[7:]}
    with open(os.path.join(kept, name[7:], "diff", "a"), encoding="utf-8") as f:
        assert f.read() == "lost"
    machine.stop()
    assert lost_objects.content(machine.root) == {"layers": 2, "blobs": 0}
    machine.cached.add(name)
    machine.start()
    assert machine.here() == {cached, lost, name[7:]}
    assert machine.shown(name) == {"a": "lost"}
