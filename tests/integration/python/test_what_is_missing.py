"""What an engine cannot do is said, and nothing less is done in its place."""

from __future__ import annotations

import pytest

import ketch
from ketch.errors import FailedPrecondition, Unavailable

pytestmark = pytest.mark.ketch_only


def test_limits_that_it_cannot_set(python):
    """An engine only warns of them, and nobody reads that."""
    python.access._facts = {"MemoryLimit": True, "PidsLimit": False, "CpuCfsQuota": False}
    with pytest.raises(FailedPrecondition, match="limit cpus and pids: the engine has no cgroup"):
        python.run("busybox", ["true"], cpus=1, pids=10, memory="64m")


def test_nobody_there(tmp_path):
    with pytest.raises(Unavailable, match="cannot connect to the daemon at unix:///.*none.sock"):
        ketch.connect(f"unix://{tmp_path}/none.sock").run("busybox", ["true"])
