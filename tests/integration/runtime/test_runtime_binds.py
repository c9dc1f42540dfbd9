"""Bundles whose root is a plain directory: bind mounts in their order, and the root's own propagation."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.boxes import runtime_box
from tests.support.boxes.runtime_cli import Runtime
from tests.support.waiting import patient

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


@pytest.mark.parametrize("user", [False, True])
def test_owners_of_a_source_in_the_root_are_mapped(runtime: Runtime, tmp_path: Path, user: bool) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("a")
    root = runtime.bundle / "rootfs"
    mapped = {"uidMappings": _MAP, "gidMappings": _MAP}
    changes: dict[str, Any] = {
        "mounts": [
            *runtime.document["mounts"],
            bind(tmp_path / "a", "/mnt"),
            bind(root / "mnt", "/mapped", **mapped),
            *([bind(root / "mnt", "/as_container", "ridmap")] if user else []),
        ]
    }
    if user:
        os.chown(root, 300_000, 300_000)
        changes |= {**_USER, "linux.namespaces": [*runtime.document["linux"]["namespaces"], {"type": "user"}]}
    places = "/mnt/file /mapped/file /as_container/file" if user else "/mnt/file /mapped/file"
    runtime.configure(["stat", "-c", "%u", *places.split()], changes)
    assert runtime("run", "one").stdout.split() == (["65534", "0", "0"] if user else ["0", "300000"])


def test_what_cannot_be_mapped_is_said_by_the_host(runtime: Runtime) -> None:
    """procfs takes no maps; the parent, which would have set them, tells the container's first process why not."""
    mount = bind(runtime.bundle / "rootfs/proc/fs", "/mapped", uidMappings=_MAP, gidMappings=_MAP)
    os.chown(runtime.bundle / "rootfs", 300_000, 300_000)
    changes = {**_USER, "linux.namespaces": [*runtime.document["linux"]["namespaces"], {"type": "user"}]}
    runtime.configure(["true"], {**changes, "mounts": [*runtime.document["mounts"], mount]})
    said = runtime("run", "one", code=1).stderr
    assert '"/mapped": map its owners: invalid argument' in said, said
    assert "must support id-mapped mounts" in said


def test_directories_that_mounts_need_are_nobodys_to_write(runtime: Runtime) -> None:
    """The tmpfs has a tmpfs's mode; the directory below it, which stays in the bundle, that of any other."""
    (runtime.bundle / "rootfs/setgid").mkdir()
    (runtime.bundle / "rootfs/setgid").chmod(0o2755)
    tmpfs = [{"destination": name, "type": "tmpfs", "source": "tmpfs"} for name in ("/a/b", "/setgid/b")]
    runtime.configure(["stat", "-c", "%a", "/a/b", "/setgid/b"], {"mounts": [*runtime.document["mounts"], *tmpfs]})
    assert runtime("run", "one").stdout.split() == ["1777", "1777"]
    modes = [(runtime.bundle / "rootfs" / name).stat().st_mode & 0o7777 for name in ("a", "a/b", "setgid/b")]
    assert modes == [0o755, 0o755, 0o2755]


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


_WATCH = """
import select, subprocess, sys
with open("/proc/self/mountinfo") as mounts:
    mounts.read()
    changed = select.poll()
    changed.register(mounts, select.POLLPRI | select.POLLERR)
    changed.poll(0)
    subprocess.run(sys.argv[1:], check=True)
    print(bool(changed.poll(0)))
"""


def test_nothing_is_seen_on_the_host_for_a_moment(runtime: Runtime, tmp_path: Path) -> None:
    """Parts of images and secrets of builds are mounted in passing, also where all mounts are shared with the host."""
    for name in ("a/part", "b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a/part/file").write_text("of the image\n")
    (tmp_path / "secret").write_text("a secret\n")
    options = [f"lowerdir={tmp_path}/a:{tmp_path}/b", "X-mount.subdir=part"]
    numbers = ["mode=400", "uid=0", "gid=0"]
    mounts = [
        *runtime.document["mounts"],
        {"destination": "/part", "type": "overlay", "source": "overlay", "options": options},
        {"destination": "/secret", "type": "ketch.secret", "source": f"{tmp_path}/secret", "options": numbers},
    ]
    runtime.configure(["cat", "/part/file", "/secret"], {"mounts": mounts, "linux.rootfsPropagation": "shared"})
    command = [sys.executable, "-m", "ketch.runtime.oci_cli.main", "--root", str(runtime.root), "run", "one"]
    shared = ["unshare", "--mount", "--propagation", "shared", sys.executable, "-c", _WATCH, *command]
    done = subprocess.run(shared, cwd=runtime.bundle, capture_output=True, text=True, timeout=patient(30), check=False)
    assert (done.stdout, done.stderr) == ("of the image\na secret\nFalse\n", "")
