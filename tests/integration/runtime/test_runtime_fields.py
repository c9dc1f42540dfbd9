"""Fields of the specification on real containers: what is refused leaves nothing behind, what is done is in force."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.boxes import runtime_box

if TYPE_CHECKING:
    from tests.support.boxes.runtime_cli import Runtime

pytestmark = [pytest.mark.timeout(90), *runtime_box.NEEDED]


def test_what_is_refused_leaves_nothing(runtime: Runtime) -> None:
    """A field by its name, a wrong type, a limit of the other version of cgroups: no state, no cgroup."""
    runtime.configure(["true"], {"linux.intelRdt": {"closID": "one"}})
    assert "linux.intelRdt is not supported: " in runtime("create", "refused", code=1).stderr
    del runtime.document["linux"]["intelRdt"]
    runtime.configure(["true"], {"process.user": {"uid": "0"}})
    assert "process.user.uid is not a whole number" in runtime("create", "refused", code=1).stderr
    runtime.configure(["true"], {"process.user": {}, "linux.resources.memory": {"useHierarchy": False}})
    assert "linux.resources.memory.useHierarchy is not supported: " in runtime("create", "refused", code=1).stderr
    assert not os.path.exists(runtime.root / "refused")


def test_unknown_fields_and_capabilities_are_no_errors(runtime: Runtime) -> None:
    names = ["CAP_CHOWN", "CAP_FLY"]
    caps = {"bounding": names, "effective": names, "permitted": names}
    runtime.configure(["grep", "CapEff", "/proc/self/status"], {"process.capabilities": caps, "new": {"field": 1}})
    assert runtime("run", "accepted").stdout.split() == ["CapEff:", "0000000000000001"]


def test_an_exec_is_checked_as_well(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> None:
    runtime.configure(["sleep", "60"])
    runtime.create_detached("checked", tmp_path_factory.mktemp("out") / "out")
    runtime("start", "checked")
    process = tmp_path_factory.mktemp("process") / "process.json"
    process.write_text('{"args": ["true"], "cwd": "/", "rlimits": [{"type": "RLIMIT_CORE"}]}')
    failed = runtime("exec", "--process", str(process), "checked", code=255)
    assert "process.rlimits[0].soft is missing" in failed.stderr
    runtime("delete", "--force", "checked")
