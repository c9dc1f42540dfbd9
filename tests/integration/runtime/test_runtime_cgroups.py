"""Limits in force on real containers; the same expectations on v1 and v2."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups import common, files
from tests.support.boxes import runtime_box
from tests.support.waiting import slowed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.boxes.runtime_box import Box
    from tests.support.boxes.runtime_cli import Runtime

pytestmark = [pytest.mark.timeout(60), *runtime_box.NEEDED]
UNIFIED = common.layout().version == 2
HUGE = "hugetlb" in (
    files.read("/sys/fs/cgroup", "cgroup.controllers").split() if UNIFIED else common.layout().hierarchies
)


@pytest.fixture
def cgroup(box: Box) -> Iterator[common.Cgroup]:
    """An empty cgroup."""
    made = common.create(f"{box.parent}/plain", None)
    yield made
    made.remove()


def limits(**resources: Any) -> dict[str, Any]:
    return {f"linux.resources.{key}": value for key, value in resources.items()}


def test_a_limit_that_is_too_low_is_told(runtime: Runtime) -> None:
    runtime.configure(["true"], {"linux.resources": {"memory": {"limit": 4096}}})
    said = runtime("run", "one", code=1).stderr
    assert "ended during its set-up: its memory ran out" in said, said


@pytest.mark.skipif(not common.has_devices(), reason="needs the devices controller")
def test_devices_that_nobody_has_named_are_denied(runtime: Runtime) -> None:
    """Without any rule those of every /dev are allowed; without a rule for all, what is named as well."""
    # A device that nobody has: who may open it is told so.
    script = "mknod /dev/x c 120 7; cat /dev/x; head -c 1 /dev/zero | wc -c"
    caps = {"process.capabilities": {kind: ["CAP_MKNOD"] for kind in ("bounding", "permitted", "effective")}}
    runtime.configure(["sh", "-c", script], {**caps, "linux.resources": {}, "linux.seccomp": None})
    done = runtime("run", "one")
    assert ("Operation not permitted" in done.stderr, done.stdout) == (True, "1\n"), done.stderr
    named = {"devices": [{"allow": True, "type": "c", "major": 120, "minor": 8, "access": "rwm"}]}
    runtime.configure(["sh", "-c", script], {"linux.resources": named})
    assert "Operation not permitted" in runtime("run", "one").stderr
    named["devices"][0]["minor"] = 7
    runtime.configure(["sh", "-c", script], {"linux.resources": named})
    assert "No such device or address" in runtime("run", "one").stderr


def test_memory_limit_is_set_and_seen(box: Box) -> None:
    name = "memory.max" if UNIFIED else "memory/memory.limit_in_bytes"
    result = box.run(["cat", f"/sys/fs/cgroup/{name}"], limits(memory={"limit": 48 << 20, "swap": 48 << 20}))
    assert result.out.strip() == str(48 << 20)
    stats = result.seen["stats"]["memory"]
    assert stats["limit"] == 48 << 20
    assert stats["max_usage"] > 0
    assert stats["stat"]
    assert result.seen["oom_kills"] == 0


def test_too_much_memory_kills(box: Box) -> None:
    # tail keeps the whole line that never ends
    changes = limits(memory={"limit": 16 << 20, "swap": 16 << 20})
    result = box.run(["sh", "-c", "tail /dev/zero; echo $?"], changes)
    assert result.out.strip() == "137"
    assert result.seen["oom_kills"] >= 1


def test_number_of_processes_is_limited(box: Box) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done"
    result = box.run(["sh", "-c", script], limits(pids={"limit": 4}))
    assert "can't fork" in result.err
    assert result.seen["stats"]["pids"]["limit"] == 4


@pytest.mark.skipif(not HUGE, reason="no hugetlb controller")
def test_huge_pages(box: Box) -> None:
    directory, name = ("", "max") if UNIFIED else ("hugetlb/", "limit_in_bytes")
    pages = [{"pageSize": "2MB", "limit": 4 << 20}]
    result = box.run(["cat", f"/sys/fs/cgroup/{directory}hugetlb.2MB.{name}"], limits(hugepageLimits=pages))
    assert result.out.strip() == str(4 << 20)


def test_cpus(box: Box) -> None:
    cpus = {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0"}
    if UNIFIED:
        names = ["cpu.weight", "cpu.max", "cpuset.cpus.effective"]
        expected = ["20", "50000 100000", "0"]
    else:
        names = ["cpu/cpu.shares", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cpuset/cpuset.cpus"]
        expected = ["512", "50000", "100000", "0"]
    script = " ".join(f"/sys/fs/cgroup/{name}" for name in names)
    result = box.run(["sh", "-c", f"cat {script}; grep Cpus_allowed_list /proc/self/status"], limits(cpu=cpus))
    assert result.out.splitlines()[: len(expected)] == expected
    assert result.out.splitlines()[-1].endswith("\t0")
    assert result.seen["stats"]["cpu"]["total_ns"] > 0


def test_devices_outside_the_list_cannot_be_opened(box: Box) -> None:
    # /dev/kmsg and /dev/mem: nodes may be made, not used
    script = "mknod /dev/kmsg c 1 11 && head -c1 /dev/kmsg; head -c1 /dev/zero | wc -c; : > /dev/null && echo fine"
    result = box.run(["sh", "-c", script])
    assert "Operation not permitted" in result.err
    assert result.out.split() == ["1", "fine"]
    everything = [{"allow": True, "access": "rwm"}]
    allowed = box.run(["sh", "-c", "mknod /dev/k c 1 5 && head -c1 /dev/k | wc -c"], limits(devices=everything))
    assert allowed.out.strip() == "1"


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs a device that is not a default one")
def test_later_device_rules_win(box: Box) -> None:
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"},
    ]
    script = "mknod /dev/fuse c 10 229; : < /dev/fuse && echo read; : > /dev/fuse"
    result = box.run(["sh", "-c", script], limits(devices=rules))
    assert result.out.strip() == "read"
    assert "Operation not permitted" in result.err


def test_a_bad_limit_is_explained_and_leaves_nothing(box: Box) -> None:
    result = box.run(["true"], limits(cpu={"cpus": "9999"}))
    assert result.failed["step"] == "cgroups"
    assert "cpuset.cpus" in result.failed["message"]
    assert "`9999`" in result.failed["message"]


def test_freeze_update_and_kill(cgroup: common.Cgroup) -> None:
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        cgroup.join()
        os.write(write_fd, b"x")
        while True:
            os.write(write_fd, b"y")  # until the pipe is full
    os.close(write_fd)
    os.read(read_fd, 1)
    assert cgroup.pids() == [pid]
    cgroup.freeze(True)
    assert cgroup.is_frozen()
    cgroup.freeze(False)
    assert not cgroup.is_frozen()
    cgroup.update({"memory": {"limit": 64 << 20, "swap": 128 << 20}, "pids": {"limit": 7}})
    cgroup.update({"memory": {"limit": 32 << 20, "swap": 32 << 20}, "pids": {"limit": 0}})
    cgroup.update({"memory": {"limit": 96 << 20, "swap": 192 << 20}})
    stats = cgroup.stats()
    assert stats["memory"]["limit"] == 96 << 20
    assert stats["pids"] == {"current": 1, "limit": 0}
    cgroup.freeze(True)
    cgroup.freeze(False)
    os.kill(pid, 0)
    # kill() waits for an empty cgroup, which needs somebody who reaps
    reaper = os.fork()
    if reaper == 0:
        cgroup.kill()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    assert os.waitpid(reaper, 0)[1] == 0
    os.close(read_fd)
    assert cgroup.pids() == []


def test_describe_and_open(cgroup: common.Cgroup) -> None:
    again = common.open(cgroup.describe())
    assert again.describe() == cgroup.describe()
    again.update({"pids": {"limit": 3}})
    assert cgroup.stats()["pids"]["limit"] == 3
    again.remove()
    again.remove()  # twice does no harm
    assert cgroup.pids() == []


def test_sub_cgroups_are_removed_too(box: Box) -> None:
    cgroup = common.create(f"{box.parent}/outer", None)
    common.create(f"{box.parent}/outer/inner", None)
    cgroup.remove()
    assert runtime_box.orphaned_cgroups(f"{box.parent}/outer") == []


@pytest.mark.parametrize("path", ["", "/", "/.."])
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(RuntimeFailure, match="not a path below the root"):
        common.create(path, None)


def test_create_undoes_what_it_made(box: Box) -> None:
    with pytest.raises(RuntimeFailure):
        common.create(f"{box.parent}/bad", {"cpu": {"cpus": "nonsense"}})
    assert runtime_box.orphaned_cgroups(f"{box.parent}/bad") == []


@pytest.mark.skipif(not UNIFIED, reason="cgroup v2 only")
def test_unified_resources(box: Box) -> None:
    changes = limits(unified={"memory.high": "100000000"})
    assert box.run(["cat", "/sys/fs/cgroup/memory.high"], changes).out.strip() == str(100000000 // 4096 * 4096)


def test_pairs_survives_what_is_not_a_number() -> None:
    assert files.pairs("a 1\nbad\nb x\nc 3") == {"a": 1, "c": 3}


def test_a_cgroup_that_goes_while_it_is_frozen_is_just_gone() -> None:
    """The kernel says ENODEV of a file that was open when its cgroup went, ENOENT of one that was not."""
    cgroup = common.at(f"/kt-gone-{os.getpid()}")
    told = cgroup.describe()
    directory, name, word = (
        (told["dir"], "cgroup.freeze", "0")
        if cgroup.version == 2
        else (told["dirs"]["freezer"], "freezer.state", "THAWED")
    )
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            os.mkdir(directory)
            os.rmdir(directory)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    seen = {"done": 0, "gone": 0}
    try:
        deadline = time.monotonic() + slowed(1)
        while time.monotonic() < deadline:
            try:
                files.write(directory, name, word)
                seen["done"] += 1
            except FileNotFoundError:
                seen["gone"] += 1
    finally:
        over.set()
        thread.join()
    assert all(seen.values()), seen
