"""A cgroup that was given to a user: containers are in it, counted, paused, ended by it; what it lacks is said."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ketch.runtime.cgroups import common, files
from tests.support.programs import need
from tests.support.rawapi import Api
from tests.support.run import daemons, unprivileged
from tests.support.waiting import until

pytestmark = [
    pytest.mark.ketch_only,
    pytest.mark.skipif(os.geteuid() != 0, reason="the cgroup is given by root"),
    pytest.mark.skipif(not common.layout().unified, reason="needs a unified hierarchy"),
]


@pytest.fixture(scope="module")
def given():
    """The engine of a user to whom a cgroup belongs, in which it is started beside somebody else's process."""
    need("newuidmap")
    unprivileged.user()
    with daemons.one_of_its_own("w") as one:
        with unprivileged.own_cgroup(one.name) as one.prefix:
            try:
                one.rootless()
                one.start()
                one.add_busybox()
                yield one, Path(f"{common.layout().unified}/{one.name}")
            finally:
                one.remove_all()
                one.stop()


def limits(cgroup: Path) -> set[str]:
    """The controllers that containers can have."""
    return set((cgroup / "cgroup.controllers").read_text().split())


def test_containers_are_in_it(given):
    """Each in a cgroup of its own, the processes of an exec, too; ketchd and monitors beside them."""
    engine, cgroup = given
    box = engine.docker("run", "-d", "busybox", "sleep", "1000").out.strip()
    place = cgroup / engine.name / box
    first = engine.inspect(box)["State"]["Pid"]
    assert files.read(str(place), "cgroup.procs").split() == [str(first)]
    assert engine.docker("exec", box, "cat", "/proc/self/cgroup").out.endswith("0::/\n")
    assert str(engine.process.pid) in (cgroup / "ketchd/cgroup.procs").read_text().split()
    assert (cgroup / "cgroup.procs").read_text() == ""
    assert len((cgroup / engine.name / "monitors/cgroup.procs").read_text().split()) >= 2
    assert engine.docker("top", box, "-o", "pid").out.split() == ["PID", str(first)]
    stats = json.loads(engine.docker("stats", "--no-stream", "--format", "{{json .}}", box).out)
    assert stats["ID"] == box[:12]
    engine.docker("pause", box)
    assert "frozen 1" in (place / "cgroup.events").read_text()
    engine.docker("unpause", box)
    engine.docker("kill", box)
    until(lambda: not place.exists(), "its cgroup is removed")
    engine.docker("rm", box)


def test_processes_of_the_machine(given):
    """A first process that is born in its cgroup may share the machine's pid namespace."""
    engine, _ = given
    done = engine.docker("run", "--rm", "--pid", "host", "busybox", "readlink", "/proc/self/ns/pid")
    assert done.out.strip() == os.readlink("/proc/self/ns/pid")


def test_a_parent_of_ones_own(given):
    """It is below what was given, as the daemon's is."""
    engine, cgroup = given
    box = engine.docker("run", "-d", "--cgroup-parent", "/mine", "busybox", "sleep", "1000").out.strip()
    assert (cgroup / "mine" / box).is_dir()
    engine.docker("rm", "-f", box)
    (cgroup / "mine").rmdir()


def test_what_it_lacks_is_said(given):
    """Limits of the controllers that it has not are left out, and `info` names them."""
    engine, cgroup = given
    info = json.loads(engine.docker("info", "--format", "{{json .}}").out)
    assert info["CgroupDriver"] == "cgroupfs"
    assert info["CgroupVersion"] == "2"
    said = "\n".join(info["Warnings"] or [])
    for controller, words in (("memory", "No memory limit support"), ("cpu", "No cpu cfs quota support")):
        assert (words in said) == (controller not in limits(cgroup)), said
    done = engine.docker("run", "--rm", "-m", "64m", "busybox", "true")
    assert ("memory limit" in done.err) == ("memory" not in limits(cgroup)), done.err


def test_killed_daemon(given):
    """The next one, in the same place, finds containers and their cgroups."""
    engine, cgroup = given
    box = engine.docker("run", "-d", "busybox", "sleep", "1000").out.strip()
    engine.stop(signal.SIGKILL)
    engine.start()
    engine.docker("pause", box)
    assert "frozen 1" in (cgroup / engine.name / box / "cgroup.events").read_text()
    engine.docker("rm", "-f", box)
    assert not (cgroup / engine.name / box).exists()


@pytest.mark.parametrize(
    ("limit", "file", "value"),
    [
        (("-m", "64m"), "memory.max", "67108864"),
        (("--cpus", "0.5"), "cpu.max", "50000 100000"),
        (("--pids-limit", "100"), "pids.max", "100"),
    ],
)
def test_limits(given, limit, file, value):
    """They hold in the container's cgroup, and change with `update`."""
    engine, cgroup = given
    if file.partition(".")[0] not in limits(cgroup):
        pytest.skip("the controller is not on the unified hierarchy")
    box = engine.docker("run", "-d", *limit, "busybox", "sleep", "1000").out.strip()
    assert (cgroup / engine.name / box / file).read_text().strip() == value
    engine.docker("rm", "-f", box)


def test_out_of_memory(given):
    """The kernel ends what exceeds the limit, and it is said."""
    engine, cgroup = given
    if "memory" not in limits(cgroup):
        pytest.skip("the controller is not on the unified hierarchy")
    script = "x=a; while true; do x=$x$x; done"
    engine.docker("run", "--name", "hungry", "-m", "16m", "busybox", "sh", "-c", script, check=False)
    assert engine.inspect("hungry")["State"]["OOMKilled"] is True
    engine.docker("rm", "hungry")


def test_programs_that_are_not_there(given):
    """It is said, whether the monitor hears of the first process before or after its end."""
    engine, _ = given
    api = Api(engine.socket)

    def fail(number: int) -> tuple[int, str]:
        made = api.must("POST", "/containers/create", {"Image": "busybox", "Cmd": ["nope"]}, name=f"none-{number}")
        status, answer = api("POST", f"/containers/{made['Id']}/start")
        api.must("DELETE", f"/containers/{made['Id']}", force=1)
        return status, answer["kind"]

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(fail, range(30))) == {(400, "program_not_found")}
