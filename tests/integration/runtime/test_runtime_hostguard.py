"""Bundles that lack a namespace, or join the host's by its path: nothing of the host is seen or changed.

Each runs in a throw-away mount namespace, where the host's root is looked at before and after.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.boxes import runtime_box
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(90), *runtime_box.NEEDED]

AROUND = """
    state() { cat /proc/self/mountinfo; hostname; }
    state > before; "$@" > out 2> err; code=$?; state > after; exit $code
"""


class Runtime:
    """The command line on one bundle whose namespaces are chosen by the test."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self.directory, self.rootfs = directory, rootfs
        self.box = runtime_box.Box(directory, rootfs)

    def document(self, namespaces: list[Any], args: list[str], changes: dict[str, Any] | None = None) -> dict[str, Any]:
        """A bundle without anything that takes a namespace."""
        entries = [{"type": one} if isinstance(one, str) else one for one in namespaces]
        bare = {
            "root": {"path": str(self.rootfs)},
            "mounts": [],
            "hostname": None,
            "linux.namespaces": entries,
            "linux.maskedPaths": [],
            "linux.readonlyPaths": [],
            "linux.seccomp": None,
        }
        return self.box.spec(args, {**bare, **(changes or {})})

    def __call__(self, document: dict[str, Any], *command: str) -> tuple[int, str, str]:
        """Run to the end (or the given command); the mounts and the host's name must be what they were."""
        bundle = self.box.bundle(document)
        words = command or ("run", "one")
        runtime = [sys.executable, "-m", "ketch.runtime.oci_cli.main", "--root", str(self.directory / "state"), *words]
        done = subprocess.run(
            ["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", AROUND, "sh", *runtime],
            cwd=bundle,
            timeout=patient(20),
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert (bundle / "after").read_text() == (bundle / "before").read_text()
        return done.returncode, (bundle / "out").read_text(), (bundle / "err").read_text()


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    one = Runtime(tmp_path, runtime_box.make_rootfs(tmp_path / "image"))
    yield one
    one.box.close()
    assert runtime_box.orphaned_cgroups(one.box.parent) == []
    assert runtime_box.host_mounts(tmp_path) == []


@pytest.mark.parametrize("kinds", [["pid", "uts"], ["pid"], [], ["pid", "ipc", "uts", "network", "cgroup"]])
def test_a_root_of_its_own_without_a_mount_namespace(runtime: Runtime, kinds: list[str]) -> None:
    script = "stat -c %i /; ls /; cd ..; pwd; stat -c %i ..; stat -c %i /tmp/../.."
    code, out, err = runtime(runtime.document(kinds, ["sh", "-c", script], {"process.cwd": "/new/place"}))
    inode = str(runtime.rootfs.stat().st_ino)
    assert (code, err) == (0, "")
    assert out.split() == [inode, *sorted(os.listdir(runtime.rootfs)), "/new", inode, inode]
    assert "new" in os.listdir(runtime.rootfs)


def test_a_joined_mount_namespace(runtime: Runtime) -> None:
    for path in ("/proc/self/ns/mnt", f"/proc/{os.getpid()}/ns/mnt"):
        kinds = ["pid", {"type": "mount", "path": path}]
        code, out, err = runtime(runtime.document(kinds, ["stat", "-c", "%i", "/"]))
        assert (code, out, err) == (0, f"{runtime.rootfs.stat().st_ino}\n", "")


def test_an_exec_goes_where_the_program_is(runtime: Runtime, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    script = f"""
        {sys.executable} -m ketch.runtime.oci_cli.main --root {state} run -d one > first 2>&1 || exit 9
        {sys.executable} -m ketch.runtime.oci_cli.main --root {state} exec one sh -c 'stat -c %i / /..; pwd'
        {sys.executable} -m ketch.runtime.oci_cli.main --root {state} exec -t one sh -c 'tty > /tmp/tty; stat -c %i /'
        {sys.executable} -m ketch.runtime.oci_cli.main --root {state} delete --force one
    """
    document = runtime.document(["pid", "uts"], ["sleep", "100"])
    bundle = runtime.box.bundle(document)
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        cwd=bundle,
        timeout=patient(20),
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    inode = str(runtime.rootfs.stat().st_ino)
    assert done.stdout.split() == [inode, inode, "/", inode], done.stderr
    assert (bundle / "first").read_text() == ""


@pytest.mark.parametrize("path", ["", "/proc/self/ns/mnt"])
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}]}, "mount `/proc`"),
        ({"mounts": [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}]}, "mount `/tmp`"),
        ({"root.readonly": True}, "make `/` read-only"),
        ({"linux.readonlyPaths": ["/etc"]}, "make `/etc` read-only"),
        ({"linux.maskedPaths": ["/etc/passwd"]}, "mask `/etc/passwd`"),
        ({"linux.rootfsPropagation": "shared"}, "set propagation `shared` of `/`"),
        ({"linux.devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}]}, "make device `/dev/x`"),
    ],
)
def test_settings_of_shared_namespaces_are_refused(
    runtime: Runtime, changes: dict[str, Any], what: str, path: str
) -> None:
    kinds: list[Any] = ["pid", "uts", *([{"type": "mount", "path": path}] if path else [])]
    document = runtime.document(kinds, ["true"], changes)
    code, out, err = runtime(document)
    where = "joins a mount namespace" if path else "shares the host's mount namespace"
    assert (code, out) == (1, "")
    assert f"{what}: the container {where}" in err
    assert not os.path.exists(runtime.directory / "state/one")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("uts", {"hostname": "other"}, "set hostname `other`: the container shares the host's uts namespace"),
        ("uts", {"domainname": "other"}, "set domainname `other`: the container shares the host's uts namespace"),
        (
            "uts",
            {"linux.sysctl": {"kernel.domainname": "x"}},
            'sysctl "kernel.domainname" is not in a separate kernel namespace',
        ),
        (
            "ipc",
            {"linux.sysctl": {"kernel.msgmax": "9000"}},
            'sysctl "kernel.msgmax" is not allowed in the hosts ipc namespace',
        ),
        (
            "network",
            {"linux.sysctl": {"net.ipv4.ip_forward": "1"}},
            'sysctl "net.ipv4.ip_forward" not allowed in host network namespace',
        ),
        (
            "network",
            {"linux.sysctl": {"vm.swappiness": "1"}},
            'sysctl "vm.swappiness" is not in a separate kernel namespace',
        ),
    ],
)
@pytest.mark.parametrize("joined", [False, True])
def test_settings_of_a_namespace_that_is_the_hosts(
    runtime: Runtime, kind: str, changes: dict[str, Any], message: str, joined: bool
) -> None:
    """Also when it is the host's by its path."""
    name = {"network": "net"}.get(kind, kind)
    kinds: list[Any] = [one for one in ("pid", "mount", "ipc", "uts", "network") if one != kind]
    kinds += [{"type": kind, "path": f"/proc/self/ns/{name}"}] if joined else []
    mounts = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    code, out, err = runtime(runtime.document(kinds, ["true"], {"mounts": mounts, **changes}))
    assert (code, out) == (1, "")
    assert message in err


def test_settings_of_a_joined_namespace_of_somebody_else(runtime: Runtime) -> None:
    other = subprocess.Popen(["unshare", "--uts", "sleep", "60"])
    try:
        while os.readlink(f"/proc/{other.pid}/ns/uts") == os.readlink("/proc/self/ns/uts"):
            assert other.poll() is None
        kinds: list[Any] = ["pid", "mount", {"type": "uts", "path": f"/proc/{other.pid}/ns/uts"}]
        code, out, err = runtime(runtime.document(kinds, ["hostname"], {"hostname": "other"}))
        assert (code, out, err) == (0, "other\n", "")
    finally:
        other.kill()
        other.wait()


def test_the_runtimes_own_bundle(runtime: Runtime) -> None:
    """What ``spec`` writes, with pid and uts only, is refused with a sentence."""
    bundle = runtime.directory / "spec"
    bundle.mkdir()
    command = [sys.executable, "-m", "ketch.runtime.oci_cli.main", "spec", "--bundle", str(bundle)]
    subprocess.run(command, check=True, timeout=patient(20))
    document = json.loads((bundle / "config.json").read_text())
    document["linux"]["namespaces"] = [{"type": "pid"}, {"type": "uts"}]
    document["root"]["path"] = str(runtime.rootfs)
    code, _, err = runtime(document)
    assert (code, "the container shares the host's mount namespace" in err) == (1, True)
