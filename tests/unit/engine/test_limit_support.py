"""Limits that cgroups of either version have: the table, over trees as the kernel makes them."""

from __future__ import annotations

import os

import pytest

from ketch.engine.model.records import HostConfig, ThrottleDevice, WeightDevice
from ketch.engine.spec import limit_support
from ketch.errors import InvalidArgument
from ketch.runtime.cgroups.common import Layout

V1 = {
    "memory": ["memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.oom_control", "memory.swappiness"],
    "cpu": ["cpu.shares", "cpu.cfs_quota_us"],
    "cpuset": [],
    "blkio": ["blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"],
}


def v1(root, extra=()) -> Layout:
    for controller, names in V1.items():
        (root / controller).mkdir()
        for name in names:
            (root / controller / name).touch()
    for name in extra:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    return Layout({controller: str(root / controller) for controller in V1}, None)


def v2(root, controllers="cpuset cpu io memory hugetlb pids") -> Layout:
    (root / "cgroup.controllers").write_text(controllers + "\n")
    return Layout({}, str(root))


def everything() -> HostConfig:
    throttle = [ThrottleDevice(path="/dev/null", rate=1)]
    return HostConfig(
        memory=1 << 26,
        memory_swap=1 << 27,
        memory_swappiness=10,
        memory_reservation=1 << 25,
        oom_kill_disable=True,
        pids_limit=5,
        nano_cpus=10**9,
        cpu_shares=512,
        cpuset_cpus="0",
        blkio_weight=100,
        blkio_weight_device=[WeightDevice(path="/dev/null", weight=100)],
        blkio_device_read_bps=throttle,
        blkio_device_write_bps=throttle,
        blkio_device_read_iops=throttle,
        blkio_device_write_iops=throttle,
    )


def dropped(host: HostConfig, layout: Layout) -> tuple[set[str], list[str]]:
    before = {name: getattr(host, name) for name in HostConfig.__struct_fields__}
    warnings = limit_support.drop(host, layout)
    return {name for name, value in before.items() if getattr(host, name) != value}, warnings


def test_v1(tmp_path):
    fields, warnings = dropped(everything(), v1(tmp_path))
    assert fields == {
        "memory_swap",
        "pids_limit",
        "blkio_weight",
        "blkio_weight_device",
        "blkio_device_read_iops",
        "blkio_device_write_iops",
    }
    assert warnings[0] == (
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
        "Memory limited without swap."
    )
    assert len(warnings) == 6


def test_weights_of_v1_have_two_names(tmp_path):
    one = v1(tmp_path, extra=["blkio/docker/blkio.bfq.weight", "blkio/docker/blkio.bfq.weight_device"])
    # No scheduler has weights for /dev/null.
    assert dropped(everything(), one)[0] & {"blkio_weight", "blkio_weight_device"} == {"blkio_weight_device"}


def test_v2(tmp_path):
    fields, warnings = dropped(everything(), v2(tmp_path))
    # No scheduler has weights for /dev/null.
    assert fields == {"memory_swappiness", "oom_kill_disable", "blkio_weight_device"}
    assert warnings == [
        "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
        "Memory swappiness discarded.",
        "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
    ]


def test_swap_of_v2(tmp_path):
    """A kernel that was built or booted without limits on swap shows it in the cgroups below the root."""
    for name, files in {"other.slice": [], "one.slice": ["memory.max"], "two.slice": ["memory.max"]}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    assert "memory_swap" in dropped(everything(), v2(tmp_path))[0]
    assert limit_support.warnings(v2(tmp_path)) == ["WARNING: No swap limit support"]
    (tmp_path / "two.slice" / "memory.swap.max").touch()
    assert "memory_swap" not in dropped(everything(), v2(tmp_path))[0]
    assert limit_support.warnings(v2(tmp_path)) == []


def test_info_warns_in_dockers_words(tmp_path):
    assert limit_support.warnings(v1(tmp_path)) == [
        "WARNING: No swap limit support",
        "WARNING: No blkio throttle.read_iops_device support",
        "WARNING: No blkio throttle.write_iops_device support",
    ]
    assert limit_support.warnings(v2(tmp_path, "cpu io"))[2:] == ["WARNING: No cpuset support"]


def test_weights_of_a_device_whose_cost_is_known(tmp_path):
    layout = v2(tmp_path)
    number = os.stat("/dev/null").st_rdev
    (tmp_path / "io.cost.qos").write_text(f"{os.major(number)}:{os.minor(number)} enable=1 ctrl=auto\n")
    assert "blkio_weight_device" not in dropped(everything(), layout)[0]


def test_controllers_that_are_not_there(tmp_path):
    with pytest.raises(InvalidArgument, match="NanoCPUs can not be set"):
        dropped(everything(), v2(tmp_path, ""))
    host = everything()
    host.nano_cpus, host.cpu_quota = 0, 5000
    fields, warnings = dropped(host, v2(tmp_path, ""))
    assert (host.memory, host.memory_swap, host.cpu_quota, host.cpuset_cpus) == (0, -1, 0, "")
    assert (len(warnings), "pids_limit" in fields) == (14, True)


@pytest.mark.parametrize("field", ["cpu_realtime_period", "cpu_realtime_runtime"])
def test_real_time_is_refused(tmp_path, field):
    for name, layout in (("v2", v2), ("v1", v1)):
        (tmp_path / name).mkdir()
        with pytest.raises(InvalidArgument, match="kernel does not support CPU real-time scheduler"):
            limit_support.drop(HostConfig(**{field: 1000}), layout(tmp_path / name))
    (tmp_path / "v1" / "cpu" / "cpu.rt_runtime_us").touch()
    layout = Layout({name: str(tmp_path / "v1" / name) for name in V1}, None)
    assert limit_support.drop(HostConfig(**{field: 1000}), layout) == []


@pytest.mark.parametrize("wanted", [{"memory_swappiness": -1}, {"oom_kill_disable": False}, {"pids_limit": 0}, {}])
def test_what_asks_for_nothing_is_not_warned_of(tmp_path, wanted):
    assert limit_support.drop(HostConfig(**wanted), v2(tmp_path, "")) == []
