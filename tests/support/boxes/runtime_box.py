"""Containers straight from the runtime library, with busybox as their image: what the runtime tests stand on.

A `Box` owns one temporary directory and one parent cgroup.  `run` has a stand-in for the monitor, because making a pid
namespace changes what later children of a process are, and pytest's own must not change.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from ketch import pidfd
from ketch.runtime import defaults
from ketch.runtime.cgroups import common
from ketch.runtime.security import seccomp_default
from tests.support.boxes import small_monitor
from tests.support.run.session import SESSION
from tests.support.waiting import patient

if TYPE_CHECKING:
    from pathlib import Path

BUSYBOX = "/bin/busybox"
NEEDED = (  # marks of tests that run containers
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not os.path.exists(BUSYBOX), reason="needs busybox-static"),
)
PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
alice:x:1000:1000:Alice:/home/alice:/bin/sh
1500:x:1600:1600:a name of digits:/home/digits:/bin/sh
broken line
"""
GROUP = """\
root:x:0:
wheel:x:10:alice,root
alice:x:1000:
audio:x:63:alice
"""


class Result(NamedTuple):
    """``code`` is None when the container never ran; then ``failed`` is what the child said."""

    code: int | None
    out: str
    err: str
    failed: dict[str, Any]
    seen: dict[str, Any]


def make_rootfs(path: Path) -> Path:
    """A root file system of busybox with a few users."""
    for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr/sbin"):
        (path / name).mkdir(parents=True)
    path.chmod(0o755)
    (path / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, path / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (path / "bin" / applet).symlink_to("busybox")
    (path / "etc/passwd").write_text(PASSWD)
    (path / "etc/group").write_text(GROUP)
    (path / "bin/garbage").write_bytes(b"\x00no program at all")
    (path / "bin/garbage").chmod(0o755)
    (path / "bin/orphan").write_text("#!/no/such/interpreter\n")
    (path / "bin/orphan").chmod(0o755)
    return path


def set_in(document: dict[str, Any], changes: dict[str, Any]) -> None:
    """Assign dotted keys: ``{"linux.resources.pids": {"limit": 5}}``."""
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        place = document
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = value


class Box:
    """Runs containers one after another."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self.directory = directory
        self.rootfs = rootfs
        self.parent = f"/{SESSION}r"
        self.lowers = [str(rootfs)]
        self.count = 0
        self.idmap = False  # whether the layers are seen through the container's user namespace
        self.users = False  # whether containers that ask for no namespaces of theirs are in a new user namespace
        self.here = False  # in forks of this process, with what a test has changed in it

    def close(self) -> None:
        """Remove the parent cgroup."""
        common.prune(self.parent)

    def spec(self, args: list[str], changes: dict[str, Any] | None = None) -> dict[str, Any]:
        """Docker's defaults for ``args``; ``changes`` as in `set_in`; mounts given as ``+mounts`` are added."""
        caps = {kind: list(defaults.DEFAULT_CAPS) for kind in ("bounding", "effective", "permitted")}
        document: dict[str, Any] = {
            "ociVersion": "1.2.0",
            "process": {
                "args": args,
                "env": ["PATH=/bin"],
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "capabilities": caps,
            },
            "root": {"path": "rootfs"},
            "hostname": "box",
            "mounts": defaults.mounts(),
            "linux": {
                "namespaces": [{"type": kind} for kind in defaults.NAMESPACES],
                "cgroupsPath": f"{self.parent}/{self.count}",
                "resources": {"devices": defaults.device_rules()},
                "maskedPaths": list(defaults.MASKED_PATHS),
                "readonlyPaths": list(defaults.READONLY_PATHS),
                "seccomp": seccomp_default.profile(defaults.DEFAULT_CAPS),
            },
        }
        changes = dict(changes or {})
        document["mounts"] += changes.pop("+mounts", [])
        set_in(document, changes)
        if self.users and "linux.namespaces" not in changes:
            _in_user_namespace(document)
        return document

    def bundle(self, document: dict[str, Any]) -> Path:
        """A new directory with config.json, upper and work."""
        self.count += 1
        place = self.directory / f"c{self.count}"
        for name in ("upper", "work"):
            (place / name).mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(document))
        return place

    def run(
        self,
        args: list[str],
        changes: dict[str, Any] | None = None,
        *,
        stdin: bytes = b"",
        tty: bool = False,
        timeout_s: float = 15.0,
        directory: str = "",
    ) -> Result:
        """Run to the end and collect what it wrote; every trace of it is removed.

        ``directory``: the root as it is, in place of an overlay of the box's own layers.
        """
        place = self.bundle(self.spec(args, changes))
        options = ["lowerdir=" + ":".join(self.lowers), f"upperdir={place}/upper", f"workdir={place}/work"]
        options += ["idmap"] if self.idmap else []
        root = [{"type": "overlay", "source": "overlay", "options": options}]
        if directory:
            root = [{"type": "bind", "source": directory, "options": ["rbind", *(["ridmap"] if self.idmap else [])]}]
        pipes = [os.pipe() for _ in range(4)]  # stdin, stdout, stderr, result
        (in_r, in_w), (out_r, out_w), (err_r, err_w), (res_r, res_w) = pipes
        if self.here:
            pid = os.fork()
            if pid == 0:
                for fd in (in_w, out_r, err_r, res_r):
                    os.close(fd)
                small_monitor.monitor([in_r, out_w, err_w, res_w], str(place), root, tty)
        else:
            pid = small_monitor.fork("monitor", str(place), root, tty, fds=[in_r, out_w, err_w, res_w])
        for fd in (in_r, out_w, err_w, res_w):
            os.close(fd)
        if stdin:
            os.write(in_w, stdin)
        os.close(in_w)
        try:
            out, err, result = _collect([out_r, err_r, res_r], timeout_s)
        finally:
            # only needed when the time is up; the container's pid namespace dies with its first process
            if not _ended(pid):
                common.at(f"{self.parent}/{self.count - 1}").kill()
                os.kill(pid, 9)
            if self.here:
                os.waitpid(pid, 0)
        report = json.loads(result)
        return Result(report["code"], out.decode(), err.decode(), report["failed"], report["seen"])


def _in_user_namespace(document: dict[str, Any]) -> None:
    """Give it users of its own, as whose it sees the files of binds, too."""
    linux = document["linux"]
    linux["namespaces"] = [*linux["namespaces"], {"type": "user"}]
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 300_000, "size": 65_536}]
    for mount in document["mounts"]:
        options = mount.get("options") or []
        if mount["type"] == "bind" and not {"idmap", "ridmap"} & {*options} and "uidMappings" not in mount:
            mount["options"] = [*options, "ridmap" if "rbind" in options else "idmap"]


def _collect(fds: list[int], timeout_s: float) -> list[bytes]:
    buffers = dict.fromkeys(fds, b"")
    waiting = list(fds)
    deadline = time.monotonic() + patient(timeout_s)
    try:
        while waiting:
            ready, _, _ = select.select(waiting, [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise TimeoutError(f"the container did not end in {patient(timeout_s):g} s: {list(buffers.values())}")
            for fd in ready:
                data = os.read(fd, 65536)
                buffers[fd] += data
                if not data:
                    waiting.remove(fd)
    finally:
        for fd in fds:
            os.close(fd)
    return list(buffers.values())


def _ended(pid: int) -> bool:
    """Wait a moment for the end of a process that is not ours to reap."""
    try:
        fd = pidfd.open_process(pid)
    except ProcessLookupError:
        return True
    try:
        ready, _, _ = select.select([fd], [], [], patient(5))
    finally:
        os.close(fd)
    return bool(ready)


def host_mounts(directory: Path) -> list[str]:
    """What is mounted in the test's own mount namespace and has to do with ``directory`` (as place or as source)."""
    with open("/proc/self/mountinfo") as file:
        return [line for line in file if str(directory) in line]


def orphaned_cgroups(parent: str) -> list[str]:
    """Directories below ``parent`` in any hierarchy."""
    layout = common.layout()
    roots = {*layout.hierarchies.values(), *([layout.unified] if layout.unified else [])}
    return sorted(root + parent for root in roots if os.path.isdir(root + parent))
