"""A runtime and a daemon that live in a chroot: what enters their containers is at the containers' root.

The chroot is a copy of the machine's own root as a mount, so that both are the same directory for stat(2), and the
bundle's image is seen in the chroot alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.boxes import runtime_box
from tests.support.waiting import patient

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engines import Engine

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not os.path.exists(runtime_box.BUSYBOX), reason="needs busybox-static"),
]

CHROOT = """
    root=$1 image=$2; shift 2
    mkdir -p $root && mount --rbind / $root && mount --bind $image $root/mnt && exec chroot $root "$@"
"""


def in_chroot(root: str, image: str) -> list[str]:
    """What starts a command line there, with ``image`` at /mnt."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", CHROOT, "sh", root, image]


@pytest.mark.parametrize(
    "kinds",
    [
        ["pid", "uts", "mount"],
        ["pid", "uts", "mount", "user"],
        ["pid", "uts"],
        ["pid", {"type": "mount", "path": "/proc/self/ns/mnt"}],
    ],
)
def test_an_exec_by_the_runtime(tmp_path: Path, kinds: list[Any]) -> None:
    image = runtime_box.make_rootfs(tmp_path / "image")
    box = runtime_box.Box(tmp_path, image)
    entries = [{"type": kind} if isinstance(kind, str) else kind for kind in kinds]
    changes = {
        "root": {"path": "/mnt"},
        "mounts": [],
        "hostname": None,
        "linux.namespaces": entries,
        "linux.maskedPaths": [],
        "linux.readonlyPaths": [],
    }
    if "user" in kinds:
        ids = [{"containerID": 0, "hostID": 0, "size": 1}]
        changes |= {"linux.uidMappings": ids, "linux.gidMappings": ids}
    program = box.bundle(box.spec(["stat", "-c", "%i", "/", "/.."], changes))
    sleeper = box.bundle(box.spec(["sleep", "100"], changes))
    runtime = f"{sys.executable} -m ketch.runtime.oci_cli.main --root {tmp_path}/state"
    terminal = "" if "mount" in kinds else "-t"  # without a mount there is none of its own
    script = f"""
        {runtime} run --bundle {program} one
        {runtime} run -d --bundle {sleeper} two > /dev/null 2>&1 < /dev/null || exit 9
        {runtime} exec two sh -c 'stat -c %i / /..; pwd'
        {runtime} exec {terminal} two sh -c 'stat -c %i / > /tmp/seen'
        {runtime} delete --force two
    """
    try:
        done = subprocess.run(
            [*in_chroot(f"{tmp_path}/root", str(image)), "sh", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=patient(30),
        )
    finally:
        box.close()
    inode = str(image.stat().st_ino)
    assert (done.stdout.split(), done.stderr) == ([inode, inode, inode, inode, "/"], "")
    assert (image / "tmp/seen").read_text() == f"{inode}\n"
    assert runtime_box.orphaned_cgroups(box.parent) == []


def test_a_daemon(own_engine: Engine, tmp_path: Path) -> None:
    if own_engine.kind != "ketch":
        pytest.skip("about ketchd")
    own_engine.prefix = in_chroot(f"{tmp_path}/root", str(tmp_path))
    own_engine.start()
    own_engine.add_busybox()
    docker = own_engine.docker
    docker("run", "-d", "--name", "one", "--ipc", "shareable", "busybox", "sh", "-c", "echo 1 > /own; exec sleep 1000")
    docker("exec", "one", "sh", "-c", "echo 2 >> /own; echo 3 > /dev/shm/shared")
    assert docker("exec", "one", "cat", "/own").out.split() == ["1", "2"]
    assert docker("cp", "one:/own", f"{tmp_path}/copy").code == 0
    assert (tmp_path / "copy").read_text().split() == ["1", "2"]
    done = docker("run", "--rm", "--ipc", "container:one", "busybox", "cat", "/dev/shm/shared")
    assert (done.out, done.err) == ("3\n", "")
    # What the container's program takes for its root is not where others are led.
    script = "mkdir /empty; cp -r /bin /empty; exec chroot /empty /bin/sleep 1000"
    docker("run", "-d", "--name", "two", "busybox", "sh", "-c", script)
    assert "etc" in docker("exec", "two", "ls", "/").out.split()
