"""Containers as scopes of systemd, on a small machine of its own (`systemd_box`); limits where it has controllers."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ketch.linux import caps
from ketch.runtime.cgroups import common, files, tree
from tests.support.boxes import runtime_box
from tests.support.programs import need
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.boxes.systemd_box import SystemdBox

pytestmark = [pytest.mark.timeout(60), *runtime_box.NEEDED]
needs_limits = pytest.mark.skipif(common.layout().version != 2, reason="needs all controllers on cgroup v2")

UNIFIED = files.read_or(common.layout().unified or "", "cgroup.controllers").split()


class Runtime:
    """ketch-runtime on that machine, with one bundle; `--systemd-cgroup` is given."""

    def __init__(self, machine: SystemdBox, directory: Path, rootfs: Path) -> None:
        self.machine = machine
        self.directory = directory
        self.bundle = directory / "bundle"
        self.bundle.mkdir()
        box = runtime_box.Box(directory, rootfs)
        self.document = box.spec(["true"])
        box.close()
        self.document["root"] = {"path": str(rootfs), "readonly": True}
        self.document["mounts"] = [mount for mount in self.document["mounts"] if mount["type"] != "cgroup"]
        self.document["linux"]["resources"] = {}

    def configure(self, args: list[str], path: str | None, **resources: Any) -> None:
        changes = {"process.args": args, "linux.cgroupsPath": path, "linux.resources": resources}
        runtime_box.set_in(self.document, changes)
        if path is None:
            del self.document["linux"]["cgroupsPath"]
        (self.bundle / "config.json").write_text(json.dumps(self.document))

    def __call__(self, *args: str, code: int = 0, **options: Any) -> str:
        root = str(self.directory / "root")
        command = [sys.executable, "-m", "ketch.runtime.oci_cli.main", "--root", root, "--systemd-cgroup", *args]
        done = self.machine.run(*command, code=code, cwd=self.bundle, **options)
        return (done.stderr if code else done.stdout) or ""

    def begin(self, name: str) -> None:
        """Create and start a container, whose output nobody reads."""
        path = self.directory / "output"
        try:
            with path.open("wb") as output:
                self("create", "--bundle", str(self.bundle), name, capture_output=False, stdout=output, stderr=output)
        except AssertionError:
            print(path.read_text())
            raise
        self("start", name)


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with busybox."""
    return runtime_box.make_rootfs(tmp_path_factory.mktemp("image"))


@pytest.fixture
def runtime(machine: SystemdBox, tmp_path: Path, rootfs: Path) -> Iterator[Runtime]:
    """What must leave no unit behind."""
    yield Runtime(machine, tmp_path, rootfs)
    try:
        until(lambda: machine.scopes() == [], lambda: f"left: {machine.scopes()}", 5)
    finally:
        for scope in machine.scopes():  # the next test has none of it
            machine.systemctl("stop", scope)


def test_a_container_is_a_scope(runtime: Runtime, machine: SystemdBox) -> None:
    """In the slice that it asks for, with everything below it its own; it outlives changes of systemd's own."""
    runtime.configure(["sleep", "1000"], "one-two.slice:ketch:c1")
    runtime.begin("c1")
    unit = "ketch-c1.scope"
    assert machine.scopes() == [unit]
    shown = {name: machine.property(unit, name) for name in ("Slice", "ControlGroup", "Delegate", "TasksMax")}
    assert shown == {
        "Slice": "one-two.slice",
        "ControlGroup": f"/one.slice/one-two.slice/{unit}",
        "Delegate": "yes",
        "TasksMax": "infinity",
    }
    assert machine.property(unit, "CollectMode") == "inactive-or-failed"
    machine.systemctl("daemon-reload")
    machine.systemctl("daemon-reexec")
    assert json.loads(runtime("state", "c1"))["status"] == "running"
    runtime("exec", "c1", "true")
    runtime("pause", "c1")
    assert json.loads(runtime("state", "c1"))["status"] == "paused"
    runtime("resume", "c1")
    assert len(json.loads(runtime("ps", "-f", "json", "c1"))) == 1
    runtime("delete", "--force", "c1")


def test_a_name_is_free_when_its_container_has_ended(runtime: Runtime, machine: SystemdBox) -> None:
    """Also at once: systemd may still know the last one."""
    runtime.configure(["true"], None)
    for _ in range(5):
        runtime("run", "--bundle", str(runtime.bundle), "again")
    runtime.configure(["sh", "-c", "sleep 1000"], None)
    runtime.begin("again")
    assert machine.scopes() == ["ketch-again.scope"]
    assert machine.property("ketch-again.scope", "Slice") == "system.slice"
    runtime("kill", "again", "KILL")
    runtime("delete", "--force", "again")


def test_a_scope_in_use_is_left_alone(runtime: Runtime, machine: SystemdBox) -> None:
    """A second container for the same unit fails, and the first one goes on."""
    runtime.configure(["sleep", "1000"], "system.slice:ketch:same")
    runtime.begin("first")
    error = runtime("run", "--bundle", str(runtime.bundle), "second", code=1)
    assert "ketch-same.scope" in error
    assert json.loads(runtime("state", "first"))["status"] == "running"
    assert "second" not in runtime("list", "-q")
    runtime("delete", "--force", "first")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/some/directory", 'expected cgroupsPath to be of format "slice:prefix:name"'),
        ("no-slice:ketch:a", "a slice is named"),
        ("system.slice:ketch:pod.slice", "processes cannot be in a slice itself"),
    ],
)
def test_what_is_no_unit_is_refused(runtime: Runtime, path: str, reason: str) -> None:
    runtime.configure(["true"], path)
    assert reason in runtime("run", "--bundle", str(runtime.bundle), "none", code=1)
    assert runtime("list", "-q") == ""


def test_systemd_is_reached_without_a_bus(runtime: Runtime, machine: SystemdBox) -> None:
    """By its own socket; without both it is said what is missing."""
    machine.systemctl("stop", "dbus.socket", "dbus.service")
    runtime.configure(["true"], None)
    runtime("run", "--bundle", str(runtime.bundle), "direct")
    machine.run("mv", "/run/systemd/private", "/run/systemd/away")
    error = runtime("run", "--bundle", str(runtime.bundle), "direct", code=1)
    assert "connect to systemd: /run/dbus/system_bus_socket" in error
    machine.run("mv", "/run/systemd/away", "/run/systemd/private")
    machine.systemctl("start", "dbus.service")


def test_annotations_are_properties(runtime: Runtime, machine: SystemdBox) -> None:
    """As with runc; what systemd ends is stopped, and can be deleted."""
    runtime.configure(["sleep", "1000"], None)
    prefix = "org.systemd.property"
    runtime.document["annotations"] = {f"{prefix}.TimeoutStopSec": "7", f"{prefix}.Documentation": "['man:a', 'man:b']"}
    (runtime.bundle / "config.json").write_text(json.dumps(runtime.document))
    runtime.begin("noted")
    assert machine.property("ketch-noted.scope", "TimeoutStopUSec") == "7s"
    assert machine.property("ketch-noted.scope", "Documentation") == "man:a man:b"
    machine.systemctl("kill", "--signal=KILL", "ketch-noted.scope")
    until(lambda: json.loads(runtime("state", "noted"))["status"] == "stopped", "it lives")
    runtime("delete", "noted")
    runtime.document["annotations"] = {f"{prefix}.TimeoutStopSec": "soon"}
    (runtime.bundle / "config.json").write_text(json.dumps(runtime.document))
    error = runtime("run", "--bundle", str(runtime.bundle), "noted", code=1)
    assert "annotation org.systemd.property.TimeoutStopSec=soon: `soon` is no value" in error


INNER = {
    "inner.target": "[Unit]\nDefaultDependencies=no\nWants=work.service\n",
    "work.service": "[Unit]\nDefaultDependencies=no\n[Service]\nSlice=deep-er.slice\nExecStart=/bin/sleep 1000\n",
}


def test_systemd_is_the_first_process_of_a_container(runtime: Runtime, machine: SystemdBox) -> None:
    """It manages what is below its scope, which systemd outside leaves to it; all of it ends with the container."""
    layers, root = runtime.directory / "layers", runtime.directory / "root-of-it"
    root.mkdir()
    layers.mkdir()
    machine.run("mount", "-t", "tmpfs", "tmpfs", str(layers))
    machine.run("mkdir", "-p", f"{layers}/upper/etc/systemd/system", f"{layers}/work")
    for name, text in INNER.items():
        machine.run("tee", f"{layers}/upper/etc/systemd/system/{name}", input=text)
    options = f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work"
    machine.run("mount", "-t", "overlay", "overlay", str(root), "-o", options)
    systemd = [need("systemd"), "--unit=inner.target", "--show-status=no"]
    runtime.configure(["env", "container=oci", *systemd], "system.slice:ketch:inner")
    tmpfs = {"type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}
    mounts = [{"destination": place, **tmpfs} for place in ("/run", "/tmp")]
    mounts.append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]})
    runtime.document["mounts"] += mounts
    runtime.document["root"] = {"path": str(root)}
    every = caps.names(caps.bounding())
    runtime.document["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), every)
    runtime.document["process"]["env"] = ["PATH=/usr/bin:/bin"]
    for name in ("seccomp", "maskedPaths", "readonlyPaths"):
        del runtime.document["linux"][name]
    (runtime.bundle / "config.json").write_text(json.dumps(runtime.document))
    runtime.begin("inner")
    until(lambda: _is_active(runtime, "work.service"), "systemd starts nothing")
    scope = machine.cgroup + machine.property("ketch-inner.scope", "ControlGroup")
    assert len(tree.pids(f"{scope}/deep.slice/deep-er.slice/work.service")) == 1
    machine.systemctl("daemon-reload")
    assert "0::/init.scope" in runtime("exec", "inner", "cat", "/proc/1/cgroup")
    runtime("exec", "inner", "systemctl", "stop", "work.service")
    runtime("delete", "--force", "inner")
    machine.run("umount", str(root), str(layers))


def _is_active(runtime: Runtime, unit: str) -> bool:
    try:
        return runtime("exec", "inner", "systemctl", "is-active", unit).strip() == "active"
    except AssertionError:  # it does not answer yet
        return False


def test_a_limit_that_the_machine_lacks_is_told(runtime: Runtime) -> None:
    """Not as a missing file, which callers take for a missing program."""
    runtime.configure(["true"], None, hugepageLimits=[{"pageSize": "3MB", "limit": 1}])
    error = runtime("run", "--bundle", str(runtime.bundle), "huge", code=1)
    assert "hugetlb.3MB.max`: no cgroup here has this limit" in error


# Starts a scope around itself, sets limits of it anew, and lives until its input ends.
SCOPE = """
import json, os, sys
from ketch.runtime.cgroups.systemd import properties, scopes
first, then = map(json.loads, sys.argv[1:])
own = properties.of_new_scope("known", "system.slice", int(os.readlink("/proc/self")), first)
assert scopes.start("known.scope", own) and not scopes.start("known.scope", own)
scopes.change("known.scope", properties.of_limits(then))
print("ready", flush=True)
sys.stdin.read()
"""


def test_systemd_knows_the_limits(machine: SystemdBox) -> None:
    """Each property has the type and the unit that it should have, whatever controllers there are."""
    first = {
        "memory": {"limit": 64 << 20, "reservation": 8 << 20, "swap": 80 << 20},
        "cpu": {"shares": 512, "quota": 50000, "period": 200000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 50},
        "blockIO": {"weight": 500},
        "unified": {"memory.min": "4096", "memory.high": "8192"},
    }
    then = {"memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1, "cpus": "0-1"}, "pids": {"limit": -1}}
    command = machine.command(sys.executable, "-c", SCOPE, json.dumps(first), json.dumps(then))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdin
        assert process.stdout.readline() == "ready\n"
        expected = {
            "MemoryMax": "infinity",
            "MemorySwapMax": "infinity",
            "MemoryLow": str(8 << 20),
            "MemoryMin": "4096",
            "MemoryHigh": "8192",
            "CPUWeight": "20",
            "CPUQuotaPerSecUSec": "infinity",
            "CPUQuotaPeriodUSec": "100ms",
            "AllowedCPUs": "0-1",
            "AllowedMemoryNodes": "0",
            "TasksMax": "infinity",
            "IOWeight": "4950",
        }
        assert {name: machine.property("known.scope", name) for name in expected} == expected
        process.stdin.close()
    until(lambda: machine.scopes() == [], "the scope stays")


@pytest.mark.skipif("hugetlb" not in UNIFIED, reason="no hugetlb controller on cgroup v2")
def test_limits_that_systemd_does_not_know(runtime: Runtime, machine: SystemdBox) -> None:
    """Their controllers are enabled for the scope all the same."""
    runtime.configure(
        ["sleep", "1000"], "huge.slice:ketch:huge", hugepageLimits=[{"pageSize": "2MB", "limit": 4 << 20}]
    )
    runtime.begin("huge")
    directory = machine.cgroup + machine.property("ketch-huge.scope", "ControlGroup")
    assert files.read(directory, "hugetlb.2MB.max") == str(4 << 20)
    new = {"hugepageLimits": [{"pageSize": "2MB", "limit": 6 << 20}]}
    runtime("update", "--resources", "-", "huge", input=json.dumps(new))
    assert files.read(directory, "hugetlb.2MB.max") == str(6 << 20)
    runtime("delete", "--force", "huge")


@needs_limits
def test_limits_are_the_units(runtime: Runtime, machine: SystemdBox) -> None:
    """They are in the files, and systemd knows them, so that it never sets them back; updates as well."""
    limits = {"memory": {"limit": 64 << 20, "swap": 64 << 20}, "pids": {"limit": 50}, "cpu": {"quota": 50000}}
    runtime.configure(["sleep", "1000"], "system.slice:ketch:limited", **limits)
    runtime.begin("limited")
    unit = "ketch-limited.scope"
    directory = machine.cgroup + machine.property(unit, "ControlGroup")
    assert (machine.property(unit, "MemoryMax"), machine.property(unit, "TasksMax")) == (str(64 << 20), "50")
    assert machine.property(unit, "CPUQuotaPerSecUSec") == "500ms"
    new = {"memory": {"limit": 96 << 20, "swap": 96 << 20}, "cpu": {"cpus": "0"}, "pids": {"limit": 40}}
    runtime("update", "--resources", "-", "limited", input=json.dumps(new))
    machine.systemctl("daemon-reload")
    machine.systemctl("set-property", "--runtime", unit, "MemoryHigh=90M", "CPUWeight=50")
    for name, value in (
        ("memory.max", 96 << 20),
        ("memory.swap.max", 0),
        ("pids.max", 40),
        ("cpu.max", "50000 100000"),
        ("cpuset.cpus", 0),
    ):
        assert files.read(directory, name) == str(value), name
    runtime("delete", "--force", "limited")


@needs_limits
def test_a_limit_that_cannot_be_leaves_nothing(runtime: Runtime) -> None:
    runtime.configure(["true"], "system.slice:ketch:bad", cpu={"cpus": "8000"})
    assert "cpuset.cpus" in runtime("run", "--bundle", str(runtime.bundle), "bad", code=1)


@pytest.mark.parametrize("detach", [False, True])
def test_a_unit_is_ready_when_the_program_in_its_container_is(
    runtime: Runtime, machine: SystemdBox, detach: bool
) -> None:
    """Of Type=notify; its main process is the runtime in the foreground, or else the container's first one."""
    need("systemd-notify")
    program = "systemd-notify --ready --status=unheard; exec sleep 1000"
    changes = {"root": {"path": "/"}, "process.env": ["PATH=/bin:/usr/bin"], "linux.seccomp": None}
    runtime_box.set_in(runtime.document, changes)
    runtime.configure(["sh", "-c", program], None)
    settings = [f"--property={one}" for one in ("Type=notify", "NotifyAccess=all", "DefaultDependencies=no")]
    run = [sys.executable, "-m", "ketch.runtime.oci_cli.main", "--root", str(runtime.directory / "root"), "run"]
    run += ["--detach"] if detach else []
    log = f"--property=StandardError=append:{runtime.directory}/log"
    machine.run(
        "systemd-run", "--unit=ready", "--collect", *settings, log, "--", *run, "--bundle", str(runtime.bundle), "c1"
    )
    try:
        shown = {name: machine.property("ready.service", name) for name in ("ActiveState", "StatusText", "MainPID")}
        pid = int(shown.pop("MainPID"))
        assert shown == {"ActiveState": "active", "StatusText": ""}
        first = json.loads(runtime("state", "c1"))["pid"]
        command = machine.run("cat", f"/proc/{pid}/cmdline").stdout
        assert (pid == first, "oci_cli" in command) == (detach, not detach)
    finally:
        runtime("delete", "--force", "c1")
        until(lambda: machine.property("ready.service", "ActiveState") == "inactive", "the unit ends")
