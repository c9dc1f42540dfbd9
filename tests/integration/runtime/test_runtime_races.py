"""Attacks on a container's set-up by a process that shares a volume, or the root's directory, with it.

The attacker renames directories and puts links in their place all the time that containers start.  A start may fail; it
may not succeed with a mask, a device, a terminal or a kernel parameter in a place that the attacker chose
(CVE-2025-31133, CVE-2025-52565, CVE-2025-52881).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ketch.runtime import defaults
from tests.support.boxes import runtime_box
from tests.support.boxes.races import bind, racing, tmpfs, tries

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.boxes.runtime_box import Box, Result

pytestmark = [pytest.mark.timeout(120), *runtime_box.NEEDED]

PORT = "net.ipv4.ip_unprivileged_port_start"
READ_ALL = "for d in /proc /proc.x; do test -e $d/self/mountinfo && cat $d/self/mountinfo && exit; done; exit 77"


class Mount(NamedTuple):
    """A line of mountinfo."""

    id: int
    parent: int
    root: str
    place: str
    options: list[str]
    kind: str


def mounts(text: str) -> list[Mount]:
    """Of the container, by the lines of its mountinfo."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if "-" in words:
            kind = words[words.index("-") + 1]
            found.append(Mount(int(words[0]), int(words[1]), words[3], words[4], words[5].split(","), kind))
    return found


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """One for each test, which changes it."""
    return runtime_box.make_rootfs(tmp_path / "image")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.mkdir()
    return path


def assert_confined(found: list[Mount]) -> None:
    """Every whole procfs and sysfs, wherever it is now, has its masks and its read-only paths.

    Names change while mountinfo is read; which mount lies on which does not.
    """
    whole = [mount for mount in found if mount.kind in ("proc", "sysfs") and mount.root == "/"]
    assert {"proc", "sysfs"} == {mount.kind for mount in whole}
    for mount in whole:
        name = f"/{mount.kind.removesuffix('fs')}/"
        on_it = [other for other in found if other.parent == mount.id]
        for path in (path for path in (*defaults.MASKED_PATHS, *defaults.READONLY_PATHS) if path.startswith(name)):
            covers = [other for other in on_it if other.place.endswith("/" + path.removeprefix(name))]
            assert covers or not os.path.exists(path), f"{path} of {mount.place} is not covered"
            assert path in defaults.MASKED_PATHS or all("ro" in cover.options for cover in covers)


@pytest.mark.parametrize("tty", [False, True])
def test_a_root_whose_directories_are_exchanged(box: Box, rootfs: Path, tty: bool) -> None:
    for name in ("proc", "sys", "dev"):
        (rootfs / f"{name}.x").mkdir()
        for fake in ("kcore", "keys", "timer_list", "null", "console", "ptmx"):
            (rootfs / f"{name}.x" / fake).write_text("")
    confined: list[Result] = []
    with racing(*(str(rootfs / name) for name in ("proc", "sys", "dev"))):
        for _ in tries(lambda: bool(confined)):
            result = box.run(["sh", "-c", READ_ALL], directory=str(rootfs), tty=tty, timeout_s=10)
            if result.code == 0:
                found = mounts(result.out.replace("\r", ""))
                assert_confined(found)
                consoles = [mount.kind for mount in found if mount.place.endswith("/console")]
                assert consoles == (["devpts"] if tty else [])
                confined.append(result)
    assert confined, "the attack kept every container from starting: it proves nothing"
    for name in ("proc.x", "sys.x", "dev.x", "proc", "sys", "dev"):
        assert not any(stat.S_ISCHR(entry.lstat().st_mode) for entry in (rootfs / name).iterdir())


@pytest.mark.parametrize("target", ["/proc", "/proc/self/attr", "/proc/sys/net/ipv4", "/proc/1/attr"])
def test_a_link_in_a_volume_leads_no_mount_into_proc(box: Box, volume: Path, target: str) -> None:
    (volume / "x").symlink_to(target)
    for mount in (tmpfs("/data/x"), bind(volume, "/data/x"), tmpfs("/data/x/y/..")):
        result = box.run(["true"], {"+mounts": [bind(volume, "/data"), mount]})
        assert result.code is None
        assert "a symbolic link there leads into /proc" in result.failed["message"], result.failed


@pytest.mark.parametrize("target", ["/proc/self/attr", "/proc/sys/net/ipv4"])
def test_a_link_that_comes_and_goes(box: Box, volume: Path, target: str) -> None:
    """Kernel parameters go to the kernel's files, and nothing is mounted over what others write to."""
    (volume / "x").mkdir()
    (volume / "x.x").symlink_to(target)
    script = f"cat /proc/self/mountinfo /proc/sys/{PORT.replace('.', '/')}"
    changes = {"+mounts": [bind(volume, "/data"), tmpfs("/data/x")], "linux.sysctl": {PORT: "77"}}
    outcomes = {True: 0, False: 0}
    with racing(str(volume / "x")):
        for _ in tries(lambda: all(outcomes.values())):
            result = box.run(["sh", "-c", script], changes)
            outcomes[result.code == 0] += 1
            if result.code == 0:
                places = {mount.place for mount in mounts(result.out) if mount.place.startswith("/proc/")}
                assert places <= {*defaults.MASKED_PATHS, *defaults.READONLY_PATHS}
                assert result.out.splitlines()[-1] == "77"
            else:
                assert "leads into /proc" in result.failed["message"], result.failed
    assert all(outcomes.values())


def test_a_link_to_dev_takes_no_nodes(box: Box, volume: Path) -> None:
    (volume / "x").symlink_to("/dev")
    other = volume.parent / "other"
    other.mkdir()
    device = {"path": "/dev/more", "type": "c", "major": 1, "minor": 5, "uid": 7, "gid": 7}
    changes = {"+mounts": [bind(volume, "/data"), bind(other, "/data/x")], "linux.devices": [device]}
    for tty in (False, True):
        result = box.run(["true"], changes, tty=tty)
        assert (result.code, result.failed) == (0, {})
    assert os.listdir(other) == []


def test_a_null_device_that_is_exchanged(box: Box, volume: Path) -> None:
    """Masks are the null device itself, or the start fails."""
    os.mknod(volume / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (volume / "null.x").symlink_to("/etc/passwd")
    masked = "/proc/version"
    document = {
        "linux.maskedPaths": [masked],
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, bind(volume, "/dev")],
    }
    outcomes = {True: 0, False: 0}
    with racing(str(volume / "null")):
        for _ in tries(lambda: all(outcomes.values())):
            result = box.run(["stat", "-c", "%t:%T %F", masked], document)
            outcomes[result.code == 0] += 1
            if result.code == 0:
                assert result.out == "1:3 character special file\n"
            else:
                assert result.failed["step"] == "masks", result.failed
    assert all(outcomes.values())


def test_a_terminal_that_is_something_else(box: Box, volume: Path) -> None:
    """What stands where ``ptmx`` should be is not taken for a terminal, and a FIFO is not waited for."""
    (volume / "pts").mkdir()
    places = [{"destination": "/proc", "type": "proc", "source": "proc"}, bind(volume, "/dev")]
    for make in (
        lambda path: path.symlink_to("/proc/self/status"),
        lambda path: path.write_text(""),
        lambda path: os.mkfifo(path),
        lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    ):
        make(volume / "pts/ptmx")
        result = box.run(["true"], {"mounts": places, "linux.maskedPaths": []}, tty=True, timeout_s=5)
        assert (result.code, result.failed.get("step")) == (None, "tty"), result
        (volume / "pts/ptmx").unlink()
