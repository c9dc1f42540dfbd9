"""A user's engine on a machine that systemd manages: containers are units of the user's own systemd."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ketch.runtime.cgroups import common, files
from tests.support.boxes import runtime_box
from tests.support.boxes.systemd_box import SystemdBox
from tests.support.programs import need
from tests.support.run import unprivileged
from tests.support.run.login import Login
from tests.support.run.users_daemon import UsersDaemon
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.ketch_only, pytest.mark.timeout(120), *runtime_box.NEEDED]
needs_limits = pytest.mark.skipif(common.layout().version != 2, reason="needs all controllers on cgroup v2")


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    """The user, logged in."""
    need("newuidmap")
    unprivileged.user()
    machine = SystemdBox(tmp_path_factory.mktemp("machine"))
    try:
        one = Login(machine)
        yield one
        one.close()
    finally:
        machine.close()


@pytest.fixture
def daemon(login: Login) -> Iterator[UsersDaemon]:
    one = UsersDaemon(login)
    yield one
    if one.process is not None:
        one.stop()


def test_containers_are_scopes(daemon: UsersDaemon, login: Login) -> None:
    """What is to live as long as they is in another one, and all are the user's systemd's."""
    daemon.start()
    info = daemon.api.must("GET", "/info")
    assert (info["CgroupDriver"], info["CgroupVersion"]) == ("systemd", "2")
    box = daemon.run("one", "sleep", "1000")
    unit = f"ketch-{box}.scope"
    assert login.systemctl("is-active", unit) == "active"
    assert login.processes(f"/user.slice/{unit}") == ["sleep 1000"]
    beside = login.processes("/user.slice/ketch-monitors-user.scope")
    assert any("sleep infinity" in line for line in beside), beside
    assert any(line.startswith(f"ketch-monitor {box}") for line in beside), beside
    daemon.api.must("POST", f"/containers/{box}/pause")
    assert daemon.api.must("GET", f"/containers/{box}/json")["State"]["Status"] == "paused"
    daemon.api.must("POST", f"/containers/{box}/unpause")
    exec_ = daemon.api.must("POST", f"/containers/{box}/exec", {"Cmd": ["sleep", "999"]})["Id"]
    daemon.api.must("POST", f"/exec/{exec_}/start", {"Detach": True})
    until(lambda: login.processes(f"/user.slice/{unit}") == ["sleep 1000", "sleep 999"], "the exec is in it")
    daemon.stop(signal.SIGKILL)
    daemon.start()
    assert login.processes(f"/user.slice/{unit}") == ["sleep 1000", "sleep 999"]
    daemon.remove(box)
    until(lambda: login.systemctl("is-active", unit, check=False) == "inactive", "the scope is gone")


def test_one_scope_for_all(daemon: UsersDaemon, login: Login) -> None:
    """With a path for a parent they are directories in one scope, which systemd is asked for once."""
    daemon.start("--cgroup-parent", "/ketch-own")
    assert daemon.api.must("GET", "/info")["CgroupDriver"] == "cgroupfs"
    scope = "/app.slice/ketch-own.scope"
    box = daemon.run("one", "sleep", "1000")
    assert login.processes(f"{scope}/ketch-own/{box}") == ["sleep 1000"]
    assert login.processes(scope) == []
    daemon.stop(signal.SIGKILL)
    keepers = login.processes(f"{scope}/ketchd")
    daemon.start("--cgroup-parent", "/ketch-own")
    assert login.processes(f"{scope}/ketchd") == keepers
    other = daemon.run("two", "sleep", "1000", CgroupParent="/mine")
    assert login.processes(f"{scope}/mine/{other}") == ["sleep 1000"]
    daemon.remove(box)
    daemon.remove(other)
    daemon.stop()
    until(lambda: login.systemctl("is-active", "ketch-own.scope", check=False) == "inactive", "the scope is gone")


def test_the_unit(daemon: UsersDaemon, login: Login) -> None:
    """It is ready when it says so; containers survive its end and its restart."""
    daemon.install()
    box = daemon.run("one", "sleep", "1000")
    first = daemon.api.must("GET", f"/containers/{box}/json")["State"]["Pid"]
    assert len(login.processes("/app.slice/ketch.service")) == 1
    # Not less than ketchd's own, which is that of the user's systemd: only root lowers it.
    pids = [*login.pids("/app.slice/ketch.service"), *login.pids(f"/user.slice/ketch-{box}.scope")]
    scores = [int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in pids]
    assert len(scores) == 2
    assert scores[0] == scores[1] > 0
    login.systemctl("restart", "ketch")
    login.systemctl("kill", "--signal=KILL", "ketch")
    until(lambda: login.systemctl("is-active", "ketch", check=False) == "active" and daemon.answers(), "it is back")
    assert daemon.api.must("GET", f"/containers/{box}/json")["State"]["Pid"] == first
    daemon.remove(box)
    login.systemctl("disable", "--now", "ketch")


def test_what_a_login_lacks(daemon: UsersDaemon) -> None:
    """Lingering, and controllers: said in the log and by `info`, once each."""
    daemon.start()
    said = daemon.api.must("GET", "/info")["Warnings"]
    missing = "cpuset, io" if common.layout().version == 2 else "cpu, cpuset, io, memory, pids"
    for words in ("last login of this user: `loginctl enable-linger`", f"no limits of {missing}: this user was given"):
        assert len([line for line in said if words in line]) == 1, said
        assert words in daemon.log()


@needs_limits
def test_limits(daemon: UsersDaemon, login: Login) -> None:
    """They are the scope's, change with `update`, and are enforced."""
    daemon.start()
    box = daemon.run("one", "sleep", "1000", Memory=64 << 20, NanoCpus=500_000_000, PidsLimit=100)
    unit = f"ketch-{box}.scope"
    assert login.systemctl("show", "--value", "--property=MemoryMax", unit) == str(64 << 20)
    cgroup = login.machine.cgroup + login.cgroup + f"/user.slice/{unit}"
    assert files.read(cgroup, "cpu.max") == "50000 100000"
    daemon.api.must("POST", f"/containers/{box}/update", {"Memory": 32 << 20, "MemorySwap": 32 << 20})
    assert files.read(cgroup, "memory.max") == str(32 << 20)
    daemon.remove(box)
    hungry = daemon.run("two", "sh", "-c", "x=a; while true; do x=$x$x; done", Memory=16 << 20)
    until(lambda: not daemon.api.must("GET", f"/containers/{hungry}/json")["State"]["Running"], "it ends")
    assert daemon.api.must("GET", f"/containers/{hungry}/json")["State"]["OOMKilled"] is True
    daemon.remove(hungry)


def test_a_private_engine(daemon: UsersDaemon, login: Login) -> None:
    """The engine of a program has its containers in one scope, named after its state directory; both end together."""
    daemon.start("--private", f"{login.home}/private")
    box = daemon.run("one", "sleep", "1000")
    (name,) = {place.name for place in Path(login.machine.cgroup + login.cgroup, "app.slice").glob("ketch-*.scope")}
    parent = name.removesuffix(".scope")
    assert login.processes(f"/app.slice/{name}/{parent}/{box}") == ["sleep 1000"]
    daemon.remove(box)
    daemon.stop()
    until(lambda: login.systemctl("is-active", name, check=False) == "inactive", "the scope is gone")
