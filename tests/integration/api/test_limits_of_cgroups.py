"""Limits that only one version of cgroups has: in force there, dropped with Docker's warning or refused elsewhere.

Run on a machine of either version, the same table is expected.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ketch.engine.spec import limit_support
from ketch.runtime.cgroups import common
from tests.support.rawapi import Api

ROOT = Path("/sys/fs/cgroup")
UNIFIED = common.layout().version == 2
LIMIT = {"Memory": 64 << 20}


def create(engine, **host: Any) -> tuple[int, dict[str, Any]]:
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": host}
    return Api(engine.socket)("POST", "/containers/create", body)


def started(engine, **host: Any) -> tuple[list[str], dict[str, Any]]:
    """The warnings, and what inspect says of the container that runs."""
    status, made = create(engine, **host)
    assert status == 201, made
    api = Api(engine.socket)
    api.must("POST", f"/containers/{made['Id']}/start")
    return made["Warnings"], api.must("GET", f"/containers/{made['Id']}/json")


def test_limits_of_v1(engine):
    warnings, found = started(engine, **LIMIT, MemorySwappiness=10, OomKillDisable=True)
    shown = {name: found["HostConfig"][name] for name in ("MemorySwappiness", "OomKillDisable")}
    if UNIFIED:
        assert warnings == [
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
            "Memory swappiness discarded.",
            "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
        ]
        assert shown == {"MemorySwappiness": None, "OomKillDisable": None}
    else:
        assert (warnings, shown) == ([], {"MemorySwappiness": 10, "OomKillDisable": True})
        lines = Path(f"/proc/{found['State']['Pid']}/cgroup").read_text().splitlines()
        path = next(line.split(":", 2)[2] for line in lines if "memory" in line.split(":")[1].split(","))
        assert (ROOT / f"memory{path}" / "memory.swappiness").read_text() == "10\n"
        assert "oom_kill_disable 1" in (ROOT / f"memory{path}" / "memory.oom_control").read_text()


def test_nothing_is_said_of_defaults(engine):
    warnings, found = started(engine, MemorySwappiness=-1, OomKillDisable=False)
    assert (warnings, found["HostConfig"]["MemorySwappiness"]) == ([], None)


def test_real_time(engine):
    status, answer = create(engine, CpuRealtimeRuntime=1000)
    if limit_support.supported(common.layout())["CpuRealtime"]:
        assert status == 201, answer
        status, answer = create(engine, CpuRealtimeRuntime=2000, CpuRealtimePeriod=1000)
        words = "cpu real-time runtime cannot be higher than cpu real-time period"
    else:
        words = "kernel does not support CPU real-time scheduler"
    assert (status, words in answer["message"]) == (400, True), answer


@pytest.mark.ketch_only  # dockerd does not look for the scheduler that has weights on v1
def test_an_update_drops_what_is_not_there(engine):
    """Weights need a scheduler that has them, which the machine of v1 may lack."""
    found = limit_support.supported(common.layout())["BlkioWeight"]
    _, made = started(engine, **LIMIT)
    answer = Api(engine.socket).must("POST", f"/containers/{made['Id']}/update", {"BlkioWeight": 300})
    assert bool(answer["Warnings"]) == (not found), answer


@pytest.mark.skipif(not UNIFIED, reason="v1 has no cost of devices, and its weights are tested where there is bfq")
@pytest.mark.parametrize("way", ["cost", "bfq"])
def test_weights_of_devices(engine, tmp_path, way):
    """A device's weight is its scheduler's, or that by which its cost is shared; without both it is dropped."""
    subprocess.run(["modprobe", "-a", "loop", *(["bfq"] if way == "bfq" else [])], capture_output=True, check=False)
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 1 << 20)
    done = subprocess.run(["losetup", "--find", "--show", disk], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr}")
    device = done.stdout.strip()
    try:
        number = f"{os.major(os.stat(device).st_rdev)}:{os.minor(os.stat(device).st_rdev)}"
        weights = [{"Path": device, "Weight": 500}]
        # (A device that was given costs once keeps them.)
        warnings, _ = started(engine, BlkioWeightDevice=[{"Path": "/dev/null", "Weight": 500}])
        assert [words for words in warnings if "Weight-device discarded." in words], warnings
        place, value, line = {
            "cost": (ROOT / "io.cost.qos", f"{number} enable=1", f"{number} 4950"),
            "bfq": (Path(f"/sys/dev/block/{number}/queue/scheduler"), "bfq", f"{number} 500"),
        }[way]
        if not place.exists() or (way == "bfq" and "bfq" not in place.read_text()):
            pytest.skip(f"the kernel has no weights by {way}")
        place.write_text(f"{value}\n")
        warnings, found = started(engine, BlkioWeightDevice=weights, BlkioWeight=200)
        path = Path(f"/proc/{found['State']['Pid']}/cgroup").read_text().strip().split("::")[1]
        name = "io.weight" if way == "cost" else "io.bfq.weight"
        lines = (ROOT / path.lstrip("/") / name).read_text().splitlines()
        default = "default 1920" if way == "cost" else "default 200"
        assert (warnings, line in lines, default in lines) == ([], True, True), lines
    finally:
        engine.remove_all()
        subprocess.run(["losetup", "--detach", device], check=True)
