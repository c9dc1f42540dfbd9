"""Engines in this process, whose commands the tests of one module share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.support.boxes.build_box import BuildBox
from tests.support.engines import Engine
from tests.support.leaks import Census

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def build_box():
    """Commands of builds; at the end nothing may be left of any."""
    with _opened() as box:
        yield box


@pytest.fixture
def vfs_box():
    """The same on the storage driver vfs, for one test."""
    with _opened("--storage-driver", "vfs") as box:
        yield box


@contextlib.contextmanager
def _opened(*extra: str) -> Iterator[BuildBox]:
    one = Engine("ketch", suffix="x")
    before = Census.take(one.name)
    argv = one.command()
    box = BuildBox([*argv[argv.index("--data-root") :], *extra])
    try:
        box.open()
        yield box
        box.until_gone()
    finally:
        box.close()
        one.delete()
    assert before.leaks() == []
