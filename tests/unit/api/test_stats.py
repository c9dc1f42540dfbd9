"""Counters in Docker's JSON, on machines that lack some of the controllers."""

from __future__ import annotations

import pytest

from ketch.api.wire import stats
from ketch.engine.model.records import Container, ContainerConfig, HostConfig
from ketch.engine.model.usage import Sample
from ketch.runtime.cgroups.v1.manager import CgroupV1
from ketch.runtime.cgroups.v2.manager import CgroupV2

CONTROLLERS = ("blkio", "cpu", "cpuacct", "memory", "pids")
CONTAINER = Container(
    id="a" * 64, name="one", created=0, image_id="", image_ref="", config=ContainerConfig(), host=HostConfig()
)


def sample(cgroup: CgroupV1 | CgroupV2) -> Sample:
    return Sample(cgroup.stats(), {}, taken_at=1, system_cpu_ns=5, online_cpus=2, machine_memory=1 << 30)


def answered(cgroup: CgroupV1 | CgroupV2) -> dict:
    return stats.answer(CONTAINER, sample(cgroup), sample(cgroup))


@pytest.mark.parametrize("missing", [*CONTROLLERS, "all"])
def test_without_a_controller_its_part_is_empty(missing, tmp_path):
    """Kernels are built, and started, without some of v1's controllers; `stats` of the others works all the same."""
    there = [name for name in CONTROLLERS if missing not in (name, "all")]
    for name in there:
        (tmp_path / name).mkdir()
    answer = answered(CgroupV1({name: f"{tmp_path}/{name}" for name in there}))
    assert bool(answer["memory_stats"]) == ("memory" in there)
    assert bool(answer["pids_stats"]) == ("pids" in there)
    assert answer["blkio_stats"]["io_service_bytes_recursive"] == []
    for reading in (answer["cpu_stats"], answer["precpu_stats"]):
        assert reading["cpu_usage"] == {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}
        assert reading["throttling_data"] == {"periods": 0, "throttled_periods": 0, "throttled_time": 0}
        assert (reading["system_cpu_usage"], reading["online_cpus"]) == (5, 2)


def test_both_hierarchies_answer_in_the_same_form(tmp_path):
    """A cgroup that has just gone, too: all zeros."""
    first, second = (
        answered(c) for c in (CgroupV1(dict.fromkeys(CONTROLLERS, str(tmp_path))), CgroupV2(str(tmp_path)))
    )
    assert first == second
    assert first["memory_stats"] == {"usage": 0, "max_usage": 0, "stats": {}, "limit": 1 << 30}
    assert first["pids_stats"] == {"current": 0}
