"""Which cgroup is a user's: how it is found, what is above it, and how it is emptied of processes."""

from __future__ import annotations

import os
import subprocess

import pytest

from ketch.daemon.settings import cgroups as settings
from ketch.daemon.settings.config import Config
from ketch.linux import ns
from ketch.runtime.cgroups import common, delegation, tree
from tests.support.run.session import SESSION

MANAGER = "/user.slice/user-1000.slice/user@1000.service"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        (f"{MANAGER}/app.slice/ketch.scope/ketch/1234", f"{MANAGER}/app.slice/ketch.scope"),
        (f"{MANAGER}/app.slice/ketch.service", f"{MANAGER}/app.slice/ketch.service"),
        (f"{MANAGER}/app.slice/app-a.slice/b.scope/x.service", f"{MANAGER}/app.slice/app-a.slice/b.scope"),
        (f"{MANAGER}/app.slice/other", ""),
        (MANAGER, ""),
        ("/system.slice/ketch.service/ketch/1", ""),
        ("/ketch/1234", ""),
    ],
)
def test_the_unit_of_a_cgroup(path: str, unit: str) -> None:
    """The topmost one below the user's systemd; what is elsewhere is in none of that one's."""
    assert delegation.unit_path(path) == unit


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0::/mine\n", "/mine"),
        ("1:name=systemd:/x\n0::/mine/ketchd\n", "/mine"),
        ("0::/\n", ""),
        ("0::/ketchd\n", ""),
        ("0::/../above\n", None),  # outside of the cgroup namespace
        ("4:memory:/x\n", None),
    ],
)
def test_the_cgroup_of_this_process(monkeypatch: pytest.MonkeyPatch, text: str, found: str | None) -> None:
    """It is the one above the leaf to which a former daemon has moved what was in it."""
    monkeypatch.setattr("ketch.runtime.cgroups.files.read", lambda *_args: text)
    monkeypatch.setattr(delegation, "_is_ours", lambda _directory: True)
    assert delegation.own("/sys/fs/cgroup") == found
    monkeypatch.setattr(delegation, "_is_ours", lambda _directory: False)
    assert delegation.own("/sys/fs/cgroup") is None


@pytest.mark.parametrize(
    ("given", "manager", "flags", "parent", "base"),
    [
        ("/mine", False, {}, "/mine/ketch", "/mine"),
        ("/mine", False, {"cgroup_parent": "/other"}, "/mine/other", "/mine"),
        (MANAGER, True, {}, "user.slice", ""),
        (MANAGER, True, {"cgroup_parent": "box.slice"}, "box.slice", ""),
        (MANAGER, True, {"cgroup_parent": "/ketch-7"}, f"{MANAGER}/app.slice/ketch-7.scope/ketch-7", None),
        (MANAGER, True, {"cgroup_parent": "/a/b c"}, f"{MANAGER}/app.slice/ketch-a-b-c.scope/a/b c", None),
    ],
)
def test_where_a_users_containers_are(
    monkeypatch: pytest.MonkeyPatch, given: str, manager: bool, flags: dict[str, str], parent: str, base: str | None
) -> None:
    """Below what was given; in a user's systemd they are scopes, or directories of one scope."""
    here = common.Layout({}, "/sys/fs/cgroup", given=given)
    here.manager = manager
    monkeypatch.setattr(common, "_layout", here)
    monkeypatch.setattr("ketch.runtime.cgroups.systemd.units.default_slice", lambda: "user.slice")
    config = Config(**flags)  # type: ignore[arg-type]
    settings.resolve(config)
    assert config.cgroup_parent == parent
    assert config.cgroup_base == (parent[: parent.index(".scope") + 6] if base is None else base)


@needs_root
@pytest.mark.skipif(not common.layout().unified, reason="needs a unified hierarchy")
def test_a_cgroup_is_emptied() -> None:
    """Its processes are in the leaf afterwards; the root of the hierarchy, which a container does not see, stays so."""
    root = common.layout().unified or ""
    if not os.path.exists(f"{root}/cgroup.events"):
        delegation.vacate(root)
        assert not os.path.exists(f"{root}/{delegation.LEAF}")
    cgroup = f"{root}/{SESSION}vacated"
    tree.make(cgroup)
    script = f"echo $$ > {cgroup}/cgroup.procs; echo; read -r _"
    process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"\n"
        delegation.vacate(cgroup)
        assert tree.pids(f"{cgroup}/{delegation.LEAF}") == [process.pid]
        delegation.vacate(cgroup)
    finally:
        process.communicate(b"\n")
        tree.remove(cgroup)


@needs_root
def test_the_user_outside() -> None:
    """In a user namespace it is the number that others know."""
    assert ns.outside_uid() == os.geteuid()
    (told, tells), (asked, asks) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setresuid(12345, 12345, 12345)
            ns.unshare(ns.CLONE_NEWUSER)
            os.write(tells, b"+")
            os.read(asked, 1)
            code = 0 if (os.geteuid(), ns.outside_uid()) == (0, 12345) else 1
        finally:
            os._exit(code)
    assert os.read(told, 1)
    with open(f"/proc/{pid}/uid_map", "w", encoding="ascii") as f:
        f.write("0 12345 1\n")
    os.write(asks, b"+")
    for fd in (told, tells, asked, asks):
        os.close(fd)
    assert os.waitpid(pid, 0)[1] == 0
