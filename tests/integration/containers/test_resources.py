"""Limits are in force, not only accepted: read where the kernel has them, and run into them."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path

import pytest

from tests.support.waiting import until

# Where the kernel has them: {file: value}, by the version of the hierarchy.
IN_THE_KERNEL = {
    1: {
        "memory/memory.limit_in_bytes": str(32 << 20),
        "cpu/cpu.cfs_quota_us": "50000",
        "cpu/cpu.cfs_period_us": "100000",
        "cpu/cpu.shares": "512",
        "pids/pids.max": "17",
        "cpuset/cpuset.cpus": "0",
    },
    2: {
        "memory.max": str(32 << 20),
        "cpu.max": "50000 100000",
        "cpu.weight": "20",
        "pids.max": "17",
        "cpuset.cpus": "0",
    },
}
VERSION = 1 if os.path.isdir("/sys/fs/cgroup/memory") else 2


def cgroup_file(client, name: str, file: str) -> str:
    """A file of the container's cgroup, found through its first process; v1: after its controller."""
    pid = json.loads(client("inspect", name).out)[0]["State"]["Pid"]
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as f:
        paths = dict(line.strip().split(":", 2)[1:] for line in f)
    controller, _, base = file.rpartition("/")
    mine = next(path for names, path in paths.items() if controller in names.split(","))
    return Path(f"/sys/fs/cgroup/{controller}{mine}/{base}").read_text(encoding="utf-8").strip()


def test_limits_are_in_the_kernel(client):
    client(
        *shlex.split(
            "run -d --name small -m 32m --cpus 0.5 --pids-limit 17 --cpuset-cpus 0 --cpu-shares 512 busybox sleep 1000"
        ),
    )
    wanted = IN_THE_KERNEL[VERSION]
    assert {file: cgroup_file(client, "small", file) for file in wanted} == wanted


def test_out_of_memory(client):
    result = client(
        *shlex.split("run --name greedy -m 16m --memory-swap 16m busybox sh -c 'x=y; while :; do x=$x$x$x$x; done'"),
        check=False,
    )
    assert result.code == 137
    assert client("inspect", "-f", "{{.State.OOMKilled}}", "greedy").out == "true\n"


def test_out_of_memory_is_told_at_once(client):
    """It is another process that the kernel kills: the container goes on."""
    script = "echo; (x=y; while :; do x=$x$x$x$x; done); read line"
    limits = ("-m", "32m", "--memory-swap", "32m")
    container = client("create", "-i", "--name", "nanny", *limits, "busybox", "sh", "-c", script).out.strip()
    chosen = ("--filter", f"container={container}", "--filter", "event=oom")
    with client.piped("events", "--since", "0", *chosen, "--format", "{{.Action}}") as events:
        with client.piped("start", "-ai", "nanny") as nanny:
            events.expect("oom\n")
            assert client("inspect", "-f", "{{.State.Running}}", "nanny").out == "true\n"
            if client.engine.kind == "ketch":
                assert client("inspect", "-f", "{{.State.OOMKilled}}", "nanny").out == "true\n"
            nanny.send("\n")
            assert nanny.wait() == 0
    assert client("inspect", "-f", "{{.State.OOMKilled}}", "nanny").out == "true\n"


@pytest.mark.ketch_only
def test_out_of_memory_while_the_daemon_is_away(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    docker = own_engine.docker
    script = "until [ -e /go ]; do sleep 0.05; done; (x=y; while :; do x=$x$x$x$x; done); echo over; sleep 1000"
    docker("run", "-d", "--name", "nanny", "-m", "32m", "--memory-swap", "32m", "busybox", "sh", "-c", script)
    pid = docker("inspect", "-f", "{{.State.Pid}}", "nanny").out.strip()
    container = docker("inspect", "-f", "{{.Id}}", "nanny").out.strip()
    log = os.path.join(own_engine.data_root, "containers", container, "log/log")
    own_engine.stop(signal.SIGKILL)
    with open(f"/proc/{pid}/root/go", "w", encoding="ascii"):
        pass
    until(lambda: b"over" in Path(log).read_bytes(), "the container says that its child is over")
    own_engine.start()
    with docker.piped("events", "--since", "0", "--filter", "event=oom", "--format", "{{.Action}}") as events:
        events.expect("oom\n")
    assert docker("inspect", "-f", "{{.State.OOMKilled}} {{.State.Running}}", "nanny").out == "true true\n"


def test_too_many_processes(client):
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait"
    result = client("run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", script, check=False)
    assert "can't fork" in result.err


def test_cgroup_is_under_the_daemons_parent_and_goes(client):
    client("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    pid = json.loads(client("inspect", "one").out)[0]["State"]["Pid"]
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as f:
        path = f.readline().strip().split(":", 2)[2]
    assert len(path.rpartition("/")[2]) == 64
    client("rm", "-f", "one")
    for controller in os.listdir("/sys/fs/cgroup"):
        assert not os.path.exists(f"/sys/fs/cgroup/{controller}{path}")
