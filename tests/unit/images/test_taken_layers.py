"""Layers that are taken to be written again: those that nobody else needs."""

from __future__ import annotations

import os

import pytest

from ketch.build.solver.work import JointLease
from ketch.images.schema import SCHEMAS
from ketch.images.store import ImageStore
from ketch.storage.database.db import Database
from ketch.storage.layers import tars
from ketch.storage.layers.draft import BuiltLayerDraft


class Box:
    """An image store, and what others need of it."""

    def __init__(self, root):
        self.needed = set()
        self.db = Database(str(root / "ketch.db"), SCHEMAS)
        self.store = ImageStore(self.db, str(root), others=lambda: self.needed)

    def layer(self, lease):
        draft = BuiltLayerDraft(self.store.layers, lease)
        with open(os.path.join(draft.directory, "file"), "w", encoding="ascii") as f:
            f.write("content")
        return draft.commit()


@pytest.fixture
def box(tmp_path):
    one = Box(tmp_path)
    yield one
    one.store.close()
    one.db.close()


def test_nobody_else_needs_it(box):
    with box.store.lease() as lease:
        layer = box.layer(lease)
        tars.facts(box.store.layers, layer)
        path = box.store.take_layer(layer, lease)
        assert path is not None
        assert os.listdir(path) == ["diff"]  # what was noted of it is not true any more
        assert not box.store.layers.exists(layer)
        draft = BuiltLayerDraft(box.store.layers, lease, path)
        assert os.listdir(draft.directory) == ["file"]
        again = draft.commit()
        assert again != layer
        assert box.store.layers.all() == [again]
        assert tars.known(box.store.layers, again) is None
    assert box.store.layers.all() == []


def test_another_lease_holds_it(box):
    with box.store.lease() as lease, box.store.lease() as other:
        layer = box.layer(lease)
        other.hold(layer)
        assert box.store.take_layer(layer, lease) is None
        assert box.store.layers.exists(layer)


def test_the_leases_of_several_builds_as_one(box):
    with box.store.lease() as first, box.store.lease() as second:
        joint = JointLease()
        joint.join(first)
        layer = box.layer(joint)
        joint.join(second)
        joint.leave(first)
        assert box.store.take_layer(layer, joint) is None  # the first may have it as a result
        joint.join(first)
        assert box.store.take_layer(layer, joint) is not None


def test_records_or_images_need_it(box):
    with box.store.lease() as lease:
        layer = box.layer(lease)
        box.needed = {layer}
        assert box.store.take_layer(layer, lease) is None
        box.needed = set()
        chain = "sha256:" + "a" * 64
        box.store.layers.link(chain, layer)
        assert box.store.take_layer(layer, lease) is None
        box.store.layers.unlink(chain)
        assert box.store.take_layer(layer, lease) is not None
        assert box.store.take_layer(layer, lease) is None  # it is gone


def test_layers_of_images_are_never_taken(box):
    with box.store.lease() as lease:
        chain = "sha256:" + "b" * 64
        lease.hold(chain)
        box.store.layers.commit(box.store.layers.begin(), chain)
        assert box.store.take_layer(chain, lease) is None
        assert box.store.layers.exists(chain)
