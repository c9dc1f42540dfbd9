"""Which cgroup driver a daemon has, and its parent, from options and from what the machine is."""

from __future__ import annotations

import pytest

from ketch.daemon.settings import cgroups as cgroup_settings
from ketch.daemon.settings.load import load
from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.runtime.cgroups import common

_V1 = common.Layout({"memory": "/sys/fs/cgroup/memory"}, "/sys/fs/cgroup/unified")
_V2 = common.Layout({}, "/sys/fs/cgroup")
_SYSTEMD, _CGROUPFS = "--exec-opt=native.cgroupdriver=systemd", "--exec-opt=native.cgroupdriver=cgroupfs"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A function that makes this machine one with a layout, on which systemd runs or not."""

    def become(layout: common.Layout, *, systemd: bool) -> None:
        monkeypatch.setattr(common, "_layout", layout)
        monkeypatch.setattr(cgroup_settings, "_BOOTED", str(tmp_path if systemd else tmp_path / "nothing"))

    return become


@pytest.mark.parametrize(
    ("layout", "systemd", "flags", "parent"),
    [
        (_V2, True, [], "system.slice"),
        (_V2, False, [], "/ketch"),
        (_V1, True, [], "/ketch"),
        (_V2, True, ["--cgroup-parent=/mine"], "/mine"),
        (_V2, True, ["--cgroup-parent=mine"], "mine"),
        (_V2, True, ["--cgroup-parent=a-b.slice"], "a-b.slice"),
        (_V2, False, ["--cgroup-parent=a-b.slice"], "/a-b.slice"),
        (_V2, True, [_CGROUPFS], "/ketch"),
        (_V2, True, [_CGROUPFS, "--cgroup-parent=a.slice"], "/a.slice"),
        (_V2, True, [_SYSTEMD, "--cgroup-parent=a.slice"], "a.slice"),
        (_V2, True, ["--exec-opt=Native.CgroupDriver = systemd "], "system.slice"),
        (_V2, True, [_CGROUPFS, _SYSTEMD], "/ketch"),
    ],
)
def test_the_parent_says_which_driver(machine, layout, systemd, flags, parent):
    """As with Docker, but that a parent of directories asks for cgroupfs."""
    machine(layout, systemd=systemd)
    assert load(flags).cgroup_parent == parent


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--exec-opt=bar"], "invalid exec-opt (bar): must be formatted 'opt=value'"),
        (["--exec-opt=native.cgroupdriver="], "invalid exec-opt (native.cgroupdriver=): must be formatted 'opt=value'"),
        (["--exec-opt=a=b"], "invalid exec-opt (a=b): unknown option: 'a'"),
        (["--exec-opt=native.cgroupdriver=foo"], "native.cgroupdriver option foo not supported"),
        (
            [_SYSTEMD, "--cgroup-parent=/x"],
            'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"',
        ),
        (
            [_SYSTEMD, "--cgroup-parent=a/b.slice"],
            'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"',
        ),
    ],
)
def test_what_is_wrong_is_told_as_dockerd_does(machine, flags, words):
    machine(_V2, systemd=True)
    with pytest.raises(InvalidArgument) as caught:
        load(flags)
    assert caught.value.message == words


@pytest.mark.parametrize(("layout", "systemd", "why"), [(_V1, True, "cgroup v1"), (_V2, False, "does not run here")])
def test_systemd_is_asked_for_where_it_cannot_be(machine, layout, systemd, why):
    machine(layout, systemd=systemd)
    with pytest.raises(FailedPrecondition, match=why):
        load([_SYSTEMD])


def test_the_file_has_it_too(machine, tmp_path):
    """As dockerd's daemon.json."""
    machine(_V2, systemd=True)
    path = tmp_path / "daemon.json"
    path.write_text('{"exec-opts": ["native.cgroupdriver=systemd"], "cgroup-parent": "box.slice"}')
    assert load([f"--config-file={path}"]).cgroup_parent == "box.slice"
