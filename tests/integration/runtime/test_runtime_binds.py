"""Bundles whose root is a plain directory: bind mounts in their order, and the root's own propagation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.boxes import runtime_box
from tests.support.boxes.runtime_cli import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(60), *runtime_box.NEEDED]

_MAP = [{"containerID": 0, "hostID": 300_000, "size": 65_536}]
_USER = {"linux.uidMappings": _MAP, "linux.gidMappings": _MAP}


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """A command line whose bundle has a root of its own, which is the container's as it is."""
    own = Runtime(tmp_path, tmp_path / "bundle/rootfs")
    runtime_box.make_rootfs(tmp_path / "bundle/rootfs")
    own.document["root"] = {"path": "rootfs"}
    yield own
    own.box.close()
    assert runtime_box.host_mounts(tmp_path) == []


def bind(source: Path | str, destination: Path | str, *options: str, **more: Any) -> dict[str, Any]:
    return {"destination": str(destination), "source": str(source), "options": ["rbind", "rprivate", *options], **more}


@pytest.mark.parametrize("user", [False, True])
def test_a_source_in_the_root_has_what_is_mounted_there_before(runtime: Runtime, tmp_path: Path, user: bool) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "file").write_text(name)
    root = runtime.bundle / "rootfs"
    (root / "out").symlink_to("/etc")
    changes: dict[str, Any] = {
        "mounts": [
            *runtime.document["mounts"],
            bind(tmp_path / "a", "/mnt"),
            bind(tmp_path / "b", "/mnt/below"),
            bind(root / "mnt", root / "final"),  # with the second one
            bind("rootfs/mnt/below", "/relative"),
            bind(root / "out/passwd", "/passwd"),  # a link is the container's, not the host's
        ]
    }
    if user:
        os.chown(root, 300_000, 300_000)
        changes |= {**_USER, "linux.namespaces": [*runtime.document["linux"]["namespaces"], {"type": "user"}]}
    script = "cat /final/file /final/below/file /relative/file; tail -n 1 /passwd"
    runtime.configure(["sh", "-c", script], changes)
    assert runtime("run", "one").stdout == "abbbroken line\n"


def test_owners_of_a_source_in_the_root_are_mapped(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("a")
    root = runtime.bundle / "rootfs"
    mounts = [
        *runtime.document["mounts"],
        bind(tmp_path / "a", "/mnt"),
        bind(root / "mnt", "/mapped", uidMappings=_MAP, gidMappings=_MAP),
    ]
    script = "stat -c %u /mnt/file /mapped/file"
    runtime.configure(["sh", "-c", script], {"mounts": mounts})
    assert runtime("run", "one").stdout.split() == ["0", "300000"]
    changes = {**_USER, "linux.namespaces": [*runtime.document["linux"]["namespaces"], {"type": "user"}]}
    runtime.configure(["true"], changes)
    with pytest.raises(AssertionError, match="map the owners of what is in the container's root"):
        runtime("run", "one")


@pytest.mark.parametrize("propagation", ["shared", "rshared", "slave", "rslave", "private", "unbindable"])
def test_the_roots_own_propagation(runtime: Runtime, propagation: str) -> None:
    script = "awk '$5 == \"/\"' /proc/self/mountinfo"
    runtime.configure(["sh", "-c", script], {"linux.rootfsPropagation": propagation})
    fields = runtime("run", "one").stdout.partition(" - ")[0].split()[6:]
    assert {field.partition(":")[0] for field in fields} - {"master", "propagate_from"} == {
        "shared": {"shared"},
        "rshared": {"shared"},
        "unbindable": {"unbindable"},
    }.get(propagation, set())
