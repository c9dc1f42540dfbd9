"""ketchd as a service on a machine that systemd manages, with containers as its scopes."""

from __future__ import annotations

import io
import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from ketch.linux import caps
from ketch.runtime.cgroups import common
from tests.support.boxes import runtime_box
from tests.support.boxes.systemd_box import SystemdBox
from tests.support.engines import BIN, NOWHERE
from tests.support.programs import need
from tests.support.rawapi import Api
from tests.support.run.runtimes import OTHERS
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.ketch_only, pytest.mark.timeout(60), *runtime_box.NEEDED]
_UNTIL_SHUTDOWN = ("Conflicts=shutdown.target", "Before=shutdown.target")
needs_limits = pytest.mark.skipif(common.layout().version != 2, reason="needs all controllers on cgroup v2")


class Service:
    """ketchd as the unit ``ketchd.service`` of a machine, with ``busybox``."""

    def __init__(self, machine: SystemdBox, directory: Path) -> None:
        self.machine = machine
        self.directory = directory
        self.api = Api(f"{directory}/s")

    def start(self, *flags: str) -> None:
        """Start it, and wait until it says that it is ready."""
        own = ["--data-root", f"{self.directory}/data", "--exec-root", f"{self.directory}/exec", "--bridge", "none"]
        settings = ["--property=Type=notify", "--property=DefaultDependencies=no", "--collect", "--quiet"]
        settings += [f"--setenv={name}={value}" for name, value in NOWHERE.items()]
        settings += [f"--property={one}" for one in _UNTIL_SHUTDOWN]
        settings += [f"--property=StandardOutput=append:{self.directory}/log"]
        settings += [f"--property=StandardError=append:{self.directory}/log"]
        ketchd = [os.path.join(BIN, "ketchd"), *own, "-H", f"unix://{self.api.path}", "--pidfile", "", *flags]
        log = self.directory / "log"
        try:
            self.machine.run("systemd-run", "--unit=ketchd", *settings, "--", *ketchd)
        except AssertionError:
            print(log.read_text() if log.exists() else "", (self.machine.directory / "log").read_text())
            raise

    def stop(self) -> None:
        self.machine.systemctl("stop", "ketchd.service")

    def run(self, name: str, *command: str, stop_signal: str = "", **host: Any) -> str:
        """Start a container; returns its id."""
        body = {"Image": "busybox", "Cmd": command, "HostConfig": {"NetworkMode": "none", **host}}
        body["StopSignal"] = stop_signal
        found = self.api.must("POST", "/containers/create", body, name=name)["Id"]
        self.api.must("POST", f"/containers/{name}/start")
        return found

    def state(self, name: str) -> dict[str, Any]:
        return self.api.must("GET", f"/containers/{name}/json")["State"]

    def output(self, name: str, *command: str) -> str:
        """What a command in a container writes."""
        body = {"Cmd": command, "AttachStdout": True, "AttachStderr": True, "Tty": True}
        exec_id = self.api.must("POST", f"/containers/{name}/exec", body)["Id"]
        status, answer = self.api("POST", f"/exec/{exec_id}/start", {"Tty": True})
        assert status == 200, answer
        return answer.decode() if isinstance(answer, bytes) else str(answer)


@pytest.fixture(scope="module")
def daemon(machine: SystemdBox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The daemon with the driver that it chooses by itself; at its end it leaves no scope behind."""
    service = Service(machine, tmp_path_factory.mktemp("d"))
    service.start()
    service.api.must("POST", "/ketch/images/bootstrap", ref="busybox")
    yield service
    service.stop()
    until(lambda: machine.scopes() == [], lambda: f"left: {machine.scopes()}", 5)


@pytest.fixture
def service(daemon: Service) -> Iterator[Service]:
    """That daemon, for one test: no container is left to the next."""
    yield daemon
    print((daemon.directory / "log").read_text())
    for one in daemon.api.must("GET", "/containers/json", all=1):
        daemon.api.must("DELETE", f"/containers/{one['Id']}", force=1)


def test_containers_are_scopes(service: Service, machine: SystemdBox) -> None:
    """In system.slice, or in the slice that they ask for; what dockerd refuses is refused in its words."""
    assert service.api.must("GET", "/info")["CgroupDriver"] == "systemd"
    one = service.run("one", "sleep", "1000")
    two = service.run("two", "sleep", "1000", CgroupParent="box-inner.slice")
    assert machine.scopes() == sorted([f"ketch-{one}.scope", f"ketch-{two}.scope", "ketch-monitors-system.scope"])
    assert machine.property(f"ketch-{one}.scope", "ControlGroup") == f"/system.slice/ketch-{one}.scope"
    assert machine.property(f"ketch-{two}.scope", "Slice") == "box-inner.slice"
    body = {"Image": "busybox", "HostConfig": {"CgroupParent": "/directory"}}
    status, answer = service.api("POST", "/containers/create", body)
    words = 'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"'
    assert (status, answer["message"]) == (400, words)
    service.api.must("POST", "/containers/one/pause")
    assert service.state("one")["Status"] == "paused"
    service.api.must("POST", "/containers/one/unpause")
    assert "0::/" in service.output("one", "cat", "/proc/self/cgroup")
    assert len(service.api.must("GET", "/containers/one/top")["Processes"]) == 1
    for _ in range(3):  # its unit's name is the same each time
        service.api.must("POST", "/containers/one/restart", t=0)
    service.api.must("DELETE", "/containers/one", force=1)
    until(lambda: f"ketch-{one}.scope" not in machine.scopes(), "the scope of a removed container stays")


@pytest.mark.parametrize("name", OTHERS)
def test_other_runtimes_make_scopes(service: Service, machine: SystemdBox, name: str) -> None:
    need(name)
    if name == "crun" and "CAP_SYS_RESOURCE" not in caps.names(caps.get()[1]):
        pytest.skip("on cgroup v2 crun needs CAP_SYS_RESOURCE")
    one = service.run("one", "sleep", "1000", Runtime=name)
    assert f"ketch-{one}.scope" in machine.scopes()
    assert machine.property(f"ketch-{one}.scope", "ControlGroup") == f"/system.slice/ketch-{one}.scope"
    service.api.must("POST", "/containers/one/pause")
    assert service.state("one")["Status"] == "paused"
    service.api.must("POST", "/containers/one/unpause")
    assert "in" in service.output("one", "echo", "in")
    service.api.must("POST", "/containers/one/restart", t=0)
    assert len(service.api.must("GET", "/containers/one/top")["Processes"]) == 1
    service.api.must("DELETE", "/containers/one", force=1)
    until(lambda: f"ketch-{one}.scope" not in machine.scopes(), "the scope of a removed container stays")


def test_containers_outlive_their_daemon(service: Service, machine: SystemdBox) -> None:
    """Also one that is killed with all of its service; the next one has the same containers, and both drivers'."""
    name = service.run("stays", "sleep", "1000")
    pid = service.state("stays")["Pid"]
    machine.systemctl("daemon-reload")
    machine.systemctl("kill", "--signal=KILL", "ketchd.service")
    until(lambda: machine.run("systemctl", "is-active", "ketchd.service", code=3), "ketchd lives")
    service.start("--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", "/plain")
    assert service.api.must("GET", "/info")["CgroupDriver"] == "cgroupfs"
    assert (service.state("stays")["Status"], service.state("stays")["Pid"]) == ("running", pid)
    service.run("plain", "sleep", "1000")
    assert machine.scopes() == sorted([f"ketch-{name}.scope", "ketch-monitors-system.scope"])
    service.output("stays", "true")
    service.api.must("POST", "/containers/stays/restart", t=0)
    until(lambda: machine.scopes() == [], lambda: f"left: {machine.scopes()}")
    service.stop()
    service.start()
    assert service.state("plain")["Status"] == "running"
    service.api.must("POST", "/containers/plain/restart", t=0)
    assert len(machine.scopes()) == 2  # its own, and the monitors'


def test_commands_of_builds_are_scopes(service: Service, machine: SystemdBox) -> None:
    """Below the daemon's slice, or the one that the build asks for; gone with the command."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        text = b"FROM busybox\nRUN sleep 1\n"
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    with ThreadPoolExecutor(1) as pool:
        query = {"networkmode": "none", "cgroupparent": "builds.slice", "nocache": 1}
        built = pool.submit(lambda: service.api("POST", "/build", context.getvalue(), **query))
        until(lambda: any(name.startswith("ketch-build-") for name in machine.scopes()), "no command's scope")
        (unit,) = (name for name in machine.scopes() if name.startswith("ketch-build-"))
        assert machine.property(unit, "Slice") == "builds.slice"
        assert built.result()[0] == 200
    until(lambda: machine.scopes() == ["ketch-monitors-system.scope"], lambda: f"left: {machine.scopes()}")


@pytest.mark.parametrize("host", [{"UsernsMode": "auto"}, {"Privileged": True}])
def test_containers_of_each_kind_are_scopes(service: Service, machine: SystemdBox, host: dict[str, Any]) -> None:
    """Also those in a user namespace."""
    unit = f"ketch-{service.run('one', 'sleep', '1000', **host)}.scope"
    assert unit in machine.scopes()
    pid = service.state("one")["Pid"]
    assert machine.run("cat", f"/proc/{pid}/cgroup").stdout.splitlines()[-1] == f"0::/system.slice/{unit}"
    assert service.output("one", "cat", "/proc/self/cgroup").splitlines()[-1] == "0::/"
    service.api.must("POST", "/containers/one/restart", t=0)
    service.api.must("DELETE", "/containers/one", force=1)
    until(lambda: unit not in machine.scopes(), "the scope of a removed container stays")


@needs_limits
def test_limits_are_changed_as_the_units(service: Service, machine: SystemdBox) -> None:
    """`update` tells systemd, which would set them back otherwise."""
    limited = service.run("limited", "sleep", "1000", Memory=64 << 20, MemorySwap=64 << 20, PidsLimit=30)
    unit = f"ketch-{limited}.scope"
    assert machine.property(unit, "MemoryMax") == str(64 << 20)
    change = {"Memory": 96 << 20, "MemorySwap": 96 << 20, "PidsLimit": 20, "CpuQuota": 20000}
    service.api.must("POST", "/containers/limited/update", change)
    machine.systemctl("set-property", "--runtime", unit, "MemoryHigh=80M", "CPUWeight=20")
    shown = service.output("limited", "cat", *(f"/sys/fs/cgroup/{n}.max" for n in ("memory", "pids", "cpu")))
    assert shown.split() == [str(96 << 20), "20", "20000", "100000"]
    assert json.dumps(service.api.must("GET", "/containers/limited/stats", stream=0)["memory_stats"]["limit"])


@needs_limits
def test_a_container_that_ran_out_of_memory_says_so(service: Service) -> None:
    """Although systemd removes its cgroup as soon as it has ended."""
    for _ in range(3):
        service.run("fat", "tail", "/dev/zero", Memory=8 << 20, MemorySwap=8 << 20)
        until(lambda: service.state("fat")["Status"] == "exited", "it does not end", patient(10))
        assert (service.state("fat")["OOMKilled"], service.state("fat")["ExitCode"]) == (True, 137)
        service.api.must("DELETE", "/containers/fat")


def test_at_a_shutdown_each_container_gets_its_own_signal_and_time(tmp_path: Path) -> None:
    """A restart of the service beforehand is nothing to them.

    Where a slice is stopped, too, its scopes wait for all services, which the box has none of but ketchd.
    """
    (tmp_path / "machine").mkdir()
    (tmp_path / "d").mkdir()
    machine = SystemdBox(tmp_path / "machine", "shutdown")
    try:
        service = Service(machine, tmp_path / "d")
        service.start()
        service.api.must("POST", "/ketch/images/bootstrap", ref="busybox")
        script = 'trap "" TERM; trap "sleep 1; echo asked >/data/end; exit 0" USR1; echo >/data/begin'
        host = {"Binds": [f"{tmp_path}/d:/data"], "RestartPolicy": {"Name": "always"}}
        one = service.run("one", "sh", "-c", f"{script}; while :; do sleep 0.1; done", stop_signal="USR1", **host)
        for unit in (f"ketch-{one}.scope", "ketch-monitors-system.scope"):
            assert "basic.target" in machine.property(unit, "Before").split()
        until((tmp_path / "d/begin").exists, "it does not begin")
        service.stop()
        service.start()
        assert service.state("one")["Running"]
        machine.systemctl("start", "over.target")
        until(lambda: machine.property("ketchd.service", "ActiveState") in ("inactive", ""), "ketchd is not stopped")
        log = (tmp_path / "d/log").read_text()
        assert ((tmp_path / "d/end").exists(), "stopping all containers (1)" in log) == (True, True), log
    finally:
        machine.close()
