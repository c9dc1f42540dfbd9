"""``update``: limits of a running container in its cgroup, and its restart policy."""

from __future__ import annotations

import json
import os
import signal

import pytest

from ketch.runtime.cgroups import common


def limits(client, name: str) -> dict:
    container = json.loads(client("inspect", name).out)[0]
    cgroup = common.at(f"/{client.engine.name}/{container['Id']}").stats()
    return {"memory": cgroup["memory"]["limit"], "pids": cgroup["pids"]["limit"]}


@pytest.mark.ketch_only
def test_limits_change_at_once(client):
    client("run", "-d", "--name", "box", "-m", "64m", "--pids-limit", "50", "busybox", "sleep", "1000")
    assert limits(client, "box") == {"memory": 64 << 20, "pids": 50}
    assert client("update", "-m", "32m", "--memory-swap", "32m", "--pids-limit", "20", "box").out == "box\n"
    assert limits(client, "box") == {"memory": 32 << 20, "pids": 20}
    client("update", "-m", "128m", "--memory-swap", "-1", "box")
    assert limits(client, "box") == {"memory": 128 << 20, "pids": 20}
    host = json.loads(client("inspect", "box").out)[0]["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (128 << 20, -1, 20)
    client("restart", "-t", "0", "box")
    assert limits(client, "box") == {"memory": 128 << 20, "pids": 20}
    client("update", "--pids-limit", "-1", "box")
    assert limits(client, "box")["pids"] == 0


def test_stopped_container(client):
    client("create", "--name", "later", "busybox", "sleep", "1000")
    client("update", "--cpu-shares", "512", "--restart", "on-failure:3", "later")
    host = json.loads(client("inspect", "later").out)[0]["HostConfig"]
    assert host["CpuShares"] == 512
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}


def test_restart_policy_takes_effect(client):
    client("run", "-d", "--name", "back", "busybox", "sleep", "1000")
    client("update", "--restart", "always", "back")
    pid = int(client("inspect", "-f", "{{.State.Pid}}", "back").out)
    container = client("inspect", "-f", "{{.Id}}", "back").out.strip()
    with client.piped(
        "events", "--since", "0", "--filter", f"container={container}", "--format", "{{.Action}}"
    ) as events:
        os.kill(pid, signal.SIGKILL)
        events.expect("die\n")
        events.expect("start\n")
    assert int(client("inspect", "-f", "{{.State.Pid}}", "back").out) not in (0, pid)


def test_bad_changes_are_refused(client):
    client("run", "-d", "--name", "box", "--cpus", "1", "-m", "64m", "--rm", "busybox", "sleep", "1000")
    for flags, words in (
        (("-m", "1m"), "Minimum memory limit"),
        (("--cpu-quota", "50000"), "NanoCPUs"),
        (("--restart", "always"), "AutoRemove"),
        (("-m", "512m"), "update the memoryswap at the same time"),
    ):
        failed = client("update", *flags, "box", check=False)
        assert failed.code == 1, flags
        if client.engine.kind == "ketch":
            assert words in failed.err
    assert json.loads(client("inspect", "box").out)[0]["HostConfig"]["Memory"] == 64 << 20


def test_update_of_what_is_not_there(client):
    assert client("update", "-m", "64m", "nobody", check=False).code == 1


def test_changes_survive_the_daemon(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    own_engine.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    own_engine.docker("update", "--restart", "unless-stopped", "--pids-limit", "30", "box")
    own_engine.stop(signal.SIGKILL)
    own_engine.start()
    host = json.loads(own_engine.docker("inspect", "box").out)[0]["HostConfig"]
    assert (host["RestartPolicy"]["Name"], host["PidsLimit"]) == ("unless-stopped", 30)
    assert limits(own_engine.docker, "box")["pids"] == 30
