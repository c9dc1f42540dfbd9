"""A builder that is killed while it builds: no record leads to anything half-made, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from ketch.build.tree import Tree
from tests.support.building.disk import CHAIN, DiskWorld
from tests.support.source.project import ROOT

POINTS = [
    "layer.built",
    "layer.built-named:2",
    "image.sync",
    "build.cache-layers-synced",
    "database.commit",
    "database.sync",
    "database.committed:2",
    "build.cache-written",
]


@pytest.mark.parametrize("point", POINTS)
def test_killed(tmp_path, point):
    program = [sys.executable, "-m", "tests.support.building.disk", str(tmp_path)]
    trace = tmp_path / "trace"
    environment = {**os.environ, "KETCH_FAULT": point, "KETCH_FAULT_TRACE": str(trace)}
    done = subprocess.run(program, env=environment, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL, "the point was not passed"

    async def after() -> None:
        world = DiskWorld(str(tmp_path))
        for result in world.records.results():
            assert all(world.snapshots.exists(layer) for layer in result.layers)
            assert world.text(Tree(tuple(result.layers))) in ("a()", "b(a())", "c(b(a()))")
        known = len(world.records.results())
        assert await world.build(CHAIN) == "c(b(a()))"
        assert len(world.ran) == 3 - known
        assert world.layers() == world.records.layers()
        await world.close()

    asyncio.run(after())
    assert not (tmp_path / "lost").exists()
