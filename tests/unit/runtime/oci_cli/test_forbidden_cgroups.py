"""A caller that may make no cgroups: no limit is left out silently, and what has no cgroup is in none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups import common
from ketch.runtime.oci_cli import creation
from ketch.runtime.oci_cli import state as states

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process find that it may make none."""
    monkeypatch.setattr(common, "_layout", None)
    monkeypatch.setattr(common, "LIMITED", True)
    monkeypatch.setattr("os.access", lambda *_args, **_kwargs: False)


@pytest.mark.parametrize(
    ("resources", "name"),
    [
        ({"memory": {"limit": 1 << 20}}, "memory.limit"),
        ({"cpu": {"cpus": "0"}}, "cpu.cpus"),
        ({"devices": [{"allow": False}], "pids": {"limit": 5}}, "pids.limit"),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}, "hugepageLimits"),
        ({"unified": {"memory.high": "1"}}, "unified"),
    ],
)
def test_limits_are_refused_by_name(resources: dict[str, Any], name: str) -> None:
    with pytest.raises(RuntimeFailure, match=rf"^linux\.resources\.{name} is not supported: .* no cgroups$"):
        creation._choose_cgroup({"linux": {"resources": resources}}, "one", systemd=False)  # type: ignore[typeddict-item]


def test_what_is_no_limit_is_not(tmp_path: Path) -> None:
    resources: Any = {"devices": [{"allow": False}], "memory": {"limit": -1}, "pids": {"limit": 0}}
    cgroup = creation._choose_cgroup({"linux": {"resources": resources}}, "one", systemd=False)
    state = states.RuntimeState(str(tmp_path), {"id": "one", "bundle": "", "cgroups": cgroup.describe()})
    assert state.cgroup() is None
    state.document["cgroups"] = {"version": 1, "dirs": {"pids": "/sys/fs/cgroup/pids/one"}}
    assert state.cgroup() is not None


def test_scopes_need_a_systemd() -> None:
    with pytest.raises(
        RuntimeFailure, match=r"^make cgroup `user\.slice:libpod:one`: no systemd of this user runs here, .*"
    ):
        creation._choose_cgroup({"linux": {"cgroupsPath": "user.slice:libpod:one"}}, "one", systemd=True)


def test_the_machine_has_its_version_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert common.layout().version == 1
    mounts = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    monkeypatch.setattr("ketch.runtime.cgroups.files.read", lambda *_args: mounts)
    assert common.machine_version() == 2
