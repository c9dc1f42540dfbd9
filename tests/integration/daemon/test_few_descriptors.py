"""The limit of open files: raised to the maximum, and refused when too low."""

from __future__ import annotations

import os
import resource

import pytest

from tests.support.boxes.damage import refused

pytestmark = pytest.mark.ketch_only


@pytest.mark.parametrize("limits", [(20, 64), (20, 4096), (64, 64)], ids=str)
def test_few_descriptors_at_the_start(own_engine, limits):
    """It takes what it may have, whatever its parent's soft limit is."""
    own_engine.prefix = ["prlimit", f"--nofile={limits[0]}:{limits[1]}"]
    own_engine.start()
    assert resource.prlimit(own_engine.process.pid, resource.RLIMIT_NOFILE) == (limits[1], limits[1])
    own_engine.add_busybox()
    assert own_engine.client("run", "--rm", "busybox", "echo", "works").out == "works\n"
    words = ("run", "-d", "--name", "one", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn; sleep 1000")
    own_engine.client(*words)
    limits_of_exec = own_engine.client("exec", "one", "sh", "-c", "ulimit -Sn; ulimit -Hn").out
    assert limits_of_exec == f"{limits[0]}\n{limits[1]}\n"  # what it raised for itself is not the containers'
    assert own_engine.client("logs", "one").out == limits_of_exec
    own_engine.client("rm", "-f", "one")
    assert (
        own_engine.client("run", "--rm", "--ulimit", "nofile=30:40", "busybox", "sh", "-c", "ulimit -Sn").out == "30\n"
    )
    own_engine.stop()
    own_engine.prefix = []


@pytest.mark.parametrize("limit", [9, 20, 24, 63])
def test_too_few_descriptors_to_start(own_engine, limit):
    own_engine.prefix = ["prlimit", f"--nofile={limit}:{limit}"]
    said = refused(own_engine)
    assert f"it may have {limit} open files and needs 64" in said
    assert "LimitNOFILE" in said
    assert not os.path.exists(own_engine.data_root)
    own_engine.prefix = []
