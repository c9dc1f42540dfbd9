"""Fields of the specification on real containers: what is refused leaves nothing behind, what is done is in force."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ketch.runtime.cgroups import files
from tests.support.boxes import runtime_box
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.boxes.runtime_box import Box
    from tests.support.boxes.runtime_cli import Runtime

pytestmark = [pytest.mark.timeout(90), *runtime_box.NEEDED]

ATTRIBUTES = "/proc/self/attr"


def test_what_is_refused_leaves_nothing(runtime: Runtime) -> None:
    """A field by its name, a wrong type, a limit of the other version of cgroups: no state, no cgroup."""
    runtime.configure(["true"], {"linux.intelRdt": {"closID": "one"}})
    assert "linux.intelRdt is not supported: " in runtime("create", "refused", code=1).stderr
    del runtime.document["linux"]["intelRdt"]
    runtime.configure(["true"], {"process.user": {"uid": "0"}})
    assert "process.user.uid is not a whole number" in runtime("create", "refused", code=1).stderr
    runtime.configure(["true"], {"process.user": {}, "linux.resources.memory": {"useHierarchy": False}})
    assert "linux.resources.memory.useHierarchy is not supported: " in runtime("create", "refused", code=1).stderr
    assert not os.path.exists(runtime.root / "refused")


def test_unknown_fields_and_capabilities_are_no_errors(runtime: Runtime) -> None:
    names = ["CAP_CHOWN", "CAP_FLY"]
    caps = {"bounding": names, "effective": names, "permitted": names}
    runtime.configure(["grep", "CapEff", "/proc/self/status"], {"process.capabilities": caps, "new": {"field": 1}})
    assert runtime("run", "accepted").stdout.split() == ["CapEff:", "0000000000000001"]


SEEN = """
awk '{print "policy", $41, "nice", $19}' /proc/self/stat
ionice -p $$
uname -m
awk '$2 != "default" {print $2; exit}' /proc/self/numa_maps
awk '{print "offset", $1, $2, $3}' /proc/self/timens_offsets
awk '{print "up", ($1 > 604800)}' /proc/uptime
grep Cpus_allowed_list /proc/self/status
"""


def test_a_process_runs_as_its_fields_say(runtime: Runtime, tmp_path: Path) -> None:
    """Policy, priorities, personality, memory and clocks, of the first process and of one that is exec'd."""
    changes = {
        "process.scheduler": {"policy": "SCHED_BATCH", "nice": 5},
        "process.ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6},
        "linux.personality": {"domain": "LINUX32"},
        "linux.memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        "linux.timeOffsets": {"boottime": {"secs": 604800}, "monotonic": {"secs": 3, "nanosecs": 500}},
    }
    runtime.document["linux"]["namespaces"].append({"type": "time"})
    runtime.configure(["sh", "-c", f"{SEEN} sleep 60"], changes)
    runtime.create_detached("fields", tmp_path / "out")
    runtime("start", "fields")
    exec_ = runtime("exec", "fields", "sh", "-c", SEEN).stdout.splitlines()
    everywhere = ",".join(files.read("/proc/self", "status").split("Cpus_allowed_list:\t")[1].splitlines()[:1])
    expected = ["policy 3 nice 5", "best-effort: prio 6", "i686", "bind=static:0", "offset monotonic 3 500"]
    expected += ["offset boottime 604800 0", "up 1", f"Cpus_allowed_list:\t{everywhere}"]
    assert exec_ == expected
    out = tmp_path / "out"
    until(lambda: "Cpus_allowed_list" in out.read_text(), "the first process has said what it sees")
    assert out.read_text().splitlines() == expected
    final = tmp_path / "process.json"
    one = {"args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"]}
    final.write_text(json.dumps({**one, "execCPUAffinity": {"initial": "0", "final": "0"}}))
    assert runtime("exec", "--process", str(final), "fields").stdout.split() == ["Cpus_allowed_list:", "0"]
    final.write_text(json.dumps({**one, "execCPUAffinity": {"initial": "8000"}}))
    assert "set CPU affinity `8000`" in runtime("exec", "--process", str(final), "fields", code=255).stderr
    runtime("delete", "--force", "fields")


@pytest.mark.skipif(os.cpu_count() == 1, reason="needs two processors")
def test_the_callers_affinity_stays_outside(runtime: Runtime) -> None:
    runtime.configure(["grep", "Cpus_allowed_list", "/proc/self/status"])
    everywhere = runtime("run", "free").stdout
    assert runtime("run", "bound", preexec_fn=lambda: os.sched_setaffinity(0, {0})).stdout == everywhere


TIMES = {"runtime": 42000, "deadline": 1000000, "period": 1000000}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"process.scheduler": {"policy": "SCHED_OTHER", "nice": 20}}, "scheduler.nice: 20 is not in"),
        ({"process.scheduler": {"policy": "SCHED_OTHER", "priority": 1}}, "scheduler.priority: `SCHED_OTHER` has none"),
        ({"process.scheduler": {"policy": "SCHED_FIFO", "runtime": 1}}, "period: `SCHED_FIFO` has none"),
        ({"process.ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 8}}, "ioPriority.priority: 8 is not in"),
        ({"linux.memoryPolicy": {"mode": "MPOL_BIND", "nodes": "x"}}, "memoryPolicy.nodes: `x` is no list"),
        ({"linux.timeOffsets": {"boottime": {"secs": 1}}}, "timeOffsets: the container has no new time namespace"),
        ({"process.scheduler": {"policy": "SCHED_ISO"}}, "set scheduler `SCHED_ISO`: invalid argument"),
        ({"linux.memoryPolicy": {"nodes": "0"}}, "memoryPolicy.mode: it is missing"),
        pytest.param(
            {
                "process.scheduler": {"policy": "SCHED_DEADLINE", "nice": 19, **TIMES},
                "linux.resources.cpu": {"cpus": "0"},
            },
            "process scheduler can't be used together with AllowedCPUs `0`",
            marks=pytest.mark.skipif(os.cpu_count() == 1, reason="needs two processors"),
        ),
    ],
)
def test_values_that_a_field_does_not_take(box: Box, changes: dict[str, Any], message: str) -> None:
    assert message in box.run(["true"], changes).failed["message"]


def test_an_exec_is_checked_as_well(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> None:
    runtime.configure(["sleep", "60"])
    runtime.create_detached("checked", tmp_path_factory.mktemp("out") / "out")
    runtime("start", "checked")
    process = tmp_path_factory.mktemp("process") / "process.json"
    process.write_text('{"args": ["true"], "cwd": "/", "rlimits": [{"type": "RLIMIT_CORE"}]}')
    failed = runtime("exec", "--process", str(process), "checked", code=255)
    assert "process.rlimits[0].soft is missing" in failed.stderr
    runtime("delete", "--force", "checked")


@pytest.fixture
def device() -> Iterator[str]:
    """A virtual device of this test's own network namespace, with addresses; what is moved and lost is gone."""
    name = "kt-moved"
    ip("link", "add", name, "mtu", "1400", "type", "veth", "peer", "name", "kt-stays")
    ip("address", "add", "10.98.0.7/24", "dev", name)
    ip("address", "add", "fd00:98::7/64", "dev", name, "nodad")
    ip("link", "set", name, "up")
    yield name
    subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True)


def test_a_network_device_becomes_the_containers(runtime: Runtime, device: str) -> None:
    taken = {"linux.netDevices": {device: {"name": "lo"}}}
    runtime.configure(["true"], taken)
    assert "the container has a device `lo` already" in runtime("create", "moved", code=1).stderr
    for others, message in (
        ({"kt-none": {}}, "move network device `kt-none`: there is none"),
        ({"lo": {"name": "first"}}, "move network device `lo`: the container has a device `first` already"),
        ({"lo": {"name": "second"}}, "move network device `lo` as `second`: "),  # the kernel refuses: after the first
    ):
        runtime.configure(["true"], {"linux.netDevices": {device: {"name": "first"}, **others}})
        assert message in runtime("create", "moved", code=1).stderr
        shown = subprocess.run(
            ["ip", "address", "show", "dev", device], capture_output=True, text=True, check=True
        ).stdout
        for word in ("mtu 1400", "10.98.0.7/24", "fd00:98::7/64", ",UP"):
            assert word in shown, (message, shown)
    runtime.configure(
        ["sh", "-c", "ip address show dev eth7; ip link show"], {"linux.netDevices": {device: {"name": "eth7"}}}
    )
    shown = runtime("run", "moved").stdout
    for word in ("mtu 1400", "10.98.0.7/24", "fd00:98::7/64", ",UP"):
        assert word in shown, shown
    assert device not in shown
    runtime.configure(["true"])
    runtime.document["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid"}]
    runtime.configure(["true"], {"linux.netDevices": {device: {}}, "hostname": "", "linux.sysctl": {}})
    assert "shares the host's network namespace" in runtime("create", "moved", code=1).stderr


@pytest.mark.skipif("selinuxfs" not in files.read("/proc", "filesystems").split(), reason="needs SELinux")
def test_labels_of_selinux(runtime: Runtime) -> None:
    """Processes, and the file systems that are made for them, have the labels that they were given."""
    label = ":".join(files.read(ATTRIBUTES, "current").rstrip("\0").split(":")[:3]) + ":s0:c1"
    try:
        files.write(ATTRIBUTES, "exec", label)
    except OSError:
        pytest.skip(f"the policy has no `{label}`")
    files.write(ATTRIBUTES, "exec", "\n")
    script = "cat /proc/self/attr/current; echo; awk '/context=/ {print $2}' /proc/mounts"
    runtime.configure(["sh", "-c", script], {"process.selinuxLabel": label, "linux.mountLabel": label})
    said = runtime("run", "one").stdout.replace("\0", "").splitlines()
    assert said[0] == label
    masked = {path for path in runtime.document["linux"]["maskedPaths"] if os.path.isdir(path)}
    assert {"/dev", "/dev/pts", "/dev/shm", *masked} <= set(said[1:])
    assert not {"/proc", "/sys", "/"} & set(said[1:])
    runtime.configure(["true"], {"process.selinuxLabel": "no:such:thing"})
    assert "set SELinux label `no:such:thing`" in runtime("run", "one", code=1).stderr
