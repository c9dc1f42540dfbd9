"""The runtime without an engine: one root file system for a file of tests, and a box for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.boxes import runtime_box
from tests.support.boxes.runtime_cli import Runtime, without_trace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.boxes.runtime_box import Box


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with busybox, which containers may read."""
    return runtime_box.make_rootfs(tmp_path_factory.mktemp("image"))


@pytest.fixture
def box(tmp_path: Path, rootfs: Path, request: pytest.FixtureRequest) -> Iterator[Box]:
    """What must leave the host's mounts and cgroups as they were."""
    box = runtime_box.Box(tmp_path, rootfs)
    box.users = box.idmap = bool(request.config.getoption("--userns"))
    yield box
    box.close()
    assert runtime_box.host_mounts(tmp_path) == []
    assert runtime_box.orphaned_cgroups(box.parent) == []


@pytest.fixture
def runtime(tmp_path: Path, rootfs: Path) -> Iterator[Runtime]:
    """The command line, with a root and a bundle of its own; it must leave the host as it was."""
    with without_trace(Runtime(tmp_path, rootfs)) as runtime:
        yield runtime
