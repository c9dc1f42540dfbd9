"""Base images made from the distribution's own packages, for real."""

from __future__ import annotations

import glob
import os
import threading

import pytest

from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.images.archives.bootstrap import bootstrap
from ketch.images.schema import SCHEMAS
from ketch.images.store import ImageStore
from ketch.storage.database.db import Database
from tests.support.run.isolation import network_of_the_machine
from tests.support.waiting import patient


@pytest.fixture(autouse=True)
def _way_out():
    """A package archive is elsewhere."""
    with network_of_the_machine():
        yield


@pytest.fixture
def store(tmp_path):
    db = Database(str(tmp_path / "ketch.db"), SCHEMAS)
    yield ImageStore(db, str(tmp_path))
    db.close()


def empty(store: ImageStore) -> bool:
    return store.list() == [] and store.content.all() == [] and store.layers.all() == []


@pytest.mark.timeout(300)
def test_debian_is_a_whole_system(store):
    steps: list[str] = []
    before = set(glob.glob("/tmp/mmdebstrap.*"))  # of others
    image = bootstrap(store, "debian:bookworm", lambda item: steps.append(item["status"]))
    root = store.layers.diff(image.chain_ids[0])
    with open(f"{root}/etc/os-release") as f:
        assert "VERSION_CODENAME=bookworm" in f.read()
    assert os.access(f"{root}/bin/bash", os.X_OK) and os.access(f"{root}/usr/bin/apt-get", os.X_OK)
    assert os.listdir(f"{root}/proc") == [] and glob.glob(f"{root}/var/cache/apt/archives/*.deb") == []
    assert image.repo_tags == ["debian:bookworm"]
    assert image.config.config.cmd == ["bash"]
    assert 50_000_000 < image.size < 400_000_000
    print(steps)
    assert "installing essential packages..." in steps
    assert set(glob.glob("/tmp/mmdebstrap.*")) <= before


def test_an_unknown_suite_leaves_nothing(store):
    with pytest.raises(FailedPrecondition, match="no-such-suite Release' does not have") as e:
        bootstrap(store, "debian:no-such-suite", lambda _item: None)
    assert "suite" in e.value.hint
    assert empty(store)
    with pytest.raises(InvalidArgument, match="not a suite"):
        bootstrap(store, "debian:Not_A_Suite", lambda _item: None)


def test_without_the_programs_it_says_what_to_install(store, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FailedPrecondition) as e:
        bootstrap(store, "debian:bookworm", lambda _item: None)
    assert "install the package mmdebstrap" in e.value.hint
    assert empty(store)


def test_a_bootstrap_that_cannot_be_kept_stops_its_program(store, monkeypatch):
    """The disk is full, say: mmdebstrap ends where it is, with its temporary tree."""
    begun, steps = threading.Event(), []

    class Full(Exception):
        pass

    def fail(*_args):
        assert begun.wait(patient(60)), steps
        raise Full

    def progress(item):
        steps.append(item["status"])
        if steps[-1].startswith("downloading packages"):
            begun.set()

    monkeypatch.setattr(store, "lease", fail)
    before = set(glob.glob("/tmp/mmdebstrap.*"))
    with pytest.raises(Full):
        bootstrap(store, "debian:bookworm", progress)
    assert empty(store)
    assert "installing essential packages..." not in steps
    assert steps[-1].startswith("removing tempdir")
    assert set(glob.glob("/tmp/mmdebstrap.*")) <= before
