"""AppArmor profiles: a program gets the one that its container was given, whatever the container does to /proc.

The profile goes to the kernel through a file below /proc/self/attr.  Who shares the root, a volume, or the container
itself with the runtime tries to have something else there at that moment (CVE-2019-16884, CVE-2025-52881).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.boxes import runtime_box
from tests.support.boxes.races import bind, racing, tmpfs, tries
from tests.support.boxes.runtime_cli import Runtime
from tests.support.run import apparmor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.boxes.runtime_box import Box


pytestmark = [
    pytest.mark.timeout(120),
    *runtime_box.NEEDED,
    apparmor.NEEDED,
]

# Everything but one file, which anybody may read who is not confined. Paths begin at the root of the mount namespace,
# which is not the container's where the machine itself is in a chroot.
RULES = """
  audit deny /etc/forbidden r,
  audit deny /**/etc/forbidden r,
"""
PROBE = ["sh", "-c", "cat /etc/forbidden 2>/dev/null || echo confined"]
FILES = ("attr/exec", "attr/apparmor/exec")


@pytest.fixture(scope="module")
def profile() -> Iterator[str]:
    """The name of a loaded profile."""
    with apparmor.profile(RULES) as name:
        yield name


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    path = runtime_box.make_rootfs(tmp_path / "image")
    (path / "etc/forbidden").write_text("loose\n")
    return path


def fake(directory: Path) -> None:
    """What looks like a process's attributes and takes every label."""
    (directory / "attr/apparmor").mkdir(parents=True)
    for name in FILES:
        (directory / name).write_text("")


def test_a_profile_confines(box: Box, profile: str) -> None:
    assert box.run(PROBE).out == "loose\n"
    assert box.run(PROBE, {"process.apparmorProfile": "unconfined"}).out == "loose\n"
    for changes in ({}, {"process.noNewPrivileges": True}, {"process.user": {"uid": 1, "gid": 1}}):
        result = box.run(PROBE, {"process.apparmorProfile": profile, **changes})
        assert (result.out, result.failed) == ("confined\n", {})


def test_a_root_whose_proc_is_exchanged(box: Box, rootfs: Path, profile: str) -> None:
    other = rootfs / "proc.x"
    for name in ("self", "thread-self"):
        fake(other / name)
    said: list[str] = []
    with racing(str(rootfs / "proc")):
        for _ in tries(lambda: len(said) > 9):
            result = box.run(PROBE, {"process.apparmorProfile": profile}, directory=str(rootfs), timeout_s=10)
            if result.code == 0:
                said.append(result.out)
    assert set(said) == {"confined\n"}  # and it was not kept from starting each time
    assert {path.read_text() for path in rootfs.glob("proc*/*self/attr/**/exec")} == {""}


@pytest.mark.parametrize("target", ["/proc/self/attr", "/proc/thread-self/attr", "/proc/self/attr/apparmor"])
def test_a_link_to_attributes_that_comes_and_goes(box: Box, tmp_path: Path, profile: str, target: str) -> None:
    """A file system that takes every label would be mounted over the kernel's."""
    volume, labels = tmp_path / "volume", tmp_path / "labels"
    (volume / "x").mkdir(parents=True)
    (volume / "x.x").symlink_to(target)
    fake(labels)
    outcomes: dict[str, int] = {"confined\n": 0, "": 0}
    with racing(str(volume / "x")):
        for mount in (tmpfs("/data/x"), bind(labels / "attr", "/data/x")):
            changes = {"+mounts": [bind(volume, "/data"), mount], "process.apparmorProfile": profile}
            for _ in tries(lambda: all(outcomes.values())):
                result = box.run(PROBE, changes)
                outcomes[result.out] = outcomes.get(result.out, 0) + 1
                assert result.code == 0 or "leads into /proc" in result.failed["message"], result.failed
    assert outcomes.keys() == {"confined\n", ""}
    assert all(outcomes.values())
    assert {path.read_text() for path in labels.glob("**/exec")} == {""}


# Mounts what takes every label over its own /proc, and takes it away again.
COVER = """
mkdir -p /tmp/proc/self/attr/apparmor /tmp/proc/thread-self/attr/apparmor
for i in /tmp/proc/*/attr /tmp/proc/*/attr/apparmor; do : > $i/exec; done
echo ready
while :; do mount -o bind /tmp/proc /proc; umount /proc; done
"""


def test_an_exec_into_a_container_that_covers_its_proc(tmp_path: Path, rootfs: Path, profile: str) -> None:
    runtime = Runtime(tmp_path, rootfs)
    runtime.document["root"]["readonly"] = False
    for kind in ("bounding", "effective", "permitted"):
        runtime.document["process"]["capabilities"][kind].append("CAP_SYS_ADMIN")
    runtime.document["linux"].pop("seccomp")
    runtime.configure(["sh", "-c", COVER])
    runtime.create_detached("one", tmp_path / "out")
    runtime("start", "one")
    process = {"args": PROBE, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
    (tmp_path / "process.json").write_text(json.dumps({**process, "apparmorProfile": profile}))
    try:
        while (tmp_path / "out").read_text() != "ready\n":
            assert runtime.state("one")["status"] == "running", (tmp_path / "out.err").read_text()
        for _ in range(10):
            assert runtime("exec", "--process", str(tmp_path / "process.json"), "one").stdout == "confined\n"
        assert runtime("exec", "one", *PROBE).stdout == "loose\n"
    finally:
        runtime("delete", "--force", "one")
        runtime.box.close()
    assert {path.read_text() for path in (rootfs / "tmp/proc").glob("*/attr/**/exec")} == {""}
