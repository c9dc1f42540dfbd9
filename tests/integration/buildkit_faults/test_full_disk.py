"""A disk that fills up while buildx sends its context, or takes what was built: told by name, and nothing is left."""

from __future__ import annotations

import os

import pytest

from tests.support.boxes.damage import fill, mounted, small
from tests.support.building.remains import on_disk, until_disk_is, until_nothing_is_half_made

pytestmark = pytest.mark.ketch_only

BIG = 24 << 20
FULL = "no space left on device"


@pytest.fixture
def context(tmp_path):
    place = tmp_path / "context"
    place.mkdir()
    (place / "big").write_bytes(os.urandom(1 << 16) * (BIG >> 16))
    (place / "Dockerfile").write_text("FROM busybox\nCOPY big /\n")
    return place


def build(engine, context, *words, **more):
    return engine.docker("buildx", "build", "--progress=plain", *words, str(context), timeout=60, **more)


def test_a_context_that_is_sent(own_engine, context):
    with small(own_engine, "size=200m", own_engine.data_root):
        before = on_disk(own_engine)
        filler = fill(own_engine.data_root)
        os.truncate(filler, os.path.getsize(filler) - BIG // 2)
        failed = build(own_engine, context, "-t", "x", check=False)
        assert failed.code == 1
        assert FULL in failed.err, failed.err
        until_nothing_is_half_made(own_engine)
        os.unlink(filler)
        build(own_engine, context, "-t", "x")
        own_engine.docker("rmi", "x")
        own_engine.docker("builder", "prune", "-af")
        until_disk_is(own_engine, before)


@pytest.mark.parametrize("kind", ["local", "tar", "oci"])
def test_where_results_go(own_engine, context, tmp_path, kind):
    """It is the client's disk: the client says so, and the engine goes on."""
    own_engine.start()
    own_engine.add_busybox()
    (tmp_path / "small").mkdir()
    with mounted(str(tmp_path / "small"), "size=4m"):
        dest = tmp_path / "small" / "out"
        failed = build(own_engine, context, f"--output=type={kind},dest={dest}", check=False)
        assert failed.code != 0
        assert FULL in failed.err, failed.err
    until_nothing_is_half_made(own_engine)
    build(own_engine, context, f"--output=type={kind},dest={tmp_path / 'out'}")
    assert (tmp_path / "out").exists()
