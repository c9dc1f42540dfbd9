"""Many containers at once: started in parallel, listed, counted, and taken over by the next daemon."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.waiting import patient, until

pytestmark = pytest.mark.timeout(120)
MANY = 60
RESIDENT_MIB = 100  # of ketchd with MANY containers: some 57 when this was written, 63 with 500


@pytest.fixture
def crowd(own_engine):
    """MANY running containers: a third without a network, the others on two networks; every fifth has a volume."""
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("network", "create", "back")

    def run(numbers: range) -> None:
        with contextlib.closing(own_engine.py()) as client:
            for n in numbers:
                client.containers.run(
                    "busybox",
                    ["sleep", "1000"],
                    name=f"c{n}",
                    detach=True,
                    network=("none", "bridge", "back")[n % 3],
                    volumes=[f"v{n}:/v"] if n % 5 == 0 else [],
                    restart_policy={"Name": "always"} if n % 2 else None,
                )

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(run, [range(start, MANY, 6) for start in range(6)]))
    yield own_engine
    own_engine.client("ps", "-q")  # it answers: what follows removes everything
    own_engine.remove_all()
    for name in own_engine.client("volume", "ls", "-q").out.split():
        own_engine.client("volume", "rm", name)


def states(engine) -> dict[str, tuple]:
    """What must not change by itself: process, start, restarts and address of each container."""
    ids = engine.client("ps", "-q", "--no-trunc").out.split()
    seen = json.loads(engine.client("inspect", *ids).out) if ids else []
    return {
        c["Name"]: (
            c["State"]["Pid"],
            c["State"]["StartedAt"],
            c["RestartCount"],
            [n["IPAddress"] for n in c["NetworkSettings"]["Networks"].values()],
        )
        for c in seen
    }


def resident_mib(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:")) / 1024


def test_a_crowd(crowd):
    before = states(crowd)
    assert len(before) == MANY
    addresses = [a for *_, found in before.values() for a in found if a]
    assert len(addresses) == len(set(addresses)) == MANY * 2 // 3
    assert resident_mib(crowd.process.pid) < RESIDENT_MIB
    # Killed, and stopped as it should be: the next daemon has them all again, as they were.
    for number in (9, 15):
        crowd.stop(number)
        crowd.start()
        assert states(crowd) == before
    with contextlib.closing(crowd.py()) as client:
        assert client.containers.get("c5").exec_run("hostname").exit_code == 0
        assert client.containers.get("c2").exec_run("ping -c1 -W2 c8").exit_code == 0  # names are answered again
        line = client.api._get(f"{client.api.base_url}/ketch/stats", params={"stream": 0, "interval": 0.2}).json()
    assert {c["name"]: c["pids"] for c in line["containers"]} == {name.lstrip("/"): 1 for name in before}
    assert all(("eth0" in c["networks"]) == (int(c["name"][1:]) % 3 != 0) for c in line["containers"])


def test_ends_that_nobody_saw(crowd):
    """What ended while there was no daemon is known at the next start; policies are kept."""
    before = states(crowd)
    crowd.stop(9)
    killed = [f"/c{n}" for n in range(0, MANY, 4)] + [f"/c{n}" for n in range(1, MANY, 4)]
    for name in killed:
        os.kill(before[name][0], 9)
    records = os.path.join(crowd.exec_root, "run", "*", "exit.json")
    deadline = time.monotonic() + patient(20)
    while len(glob.glob(records)) < len(killed):
        assert time.monotonic() < deadline, "each monitor writes how its container ended"
        time.sleep(0.05)
    crowd.start()
    while len(after := states(crowd)) < MANY - MANY // 4:
        assert time.monotonic() < deadline + 20, "those with a policy start again"
        time.sleep(0.1)
    assert {n: s for n, s in after.items() if n not in killed} == {n: s for n, s in before.items() if n not in killed}
    assert set(after) == {n for n in before if n not in killed or int(n[2:]) % 2}
    assert crowd.client("ps", "-aq", "--filter", "exited=137").out.count("\n") == MANY // 4
    assert all(after[n][2] == 1 for n in killed if n in after)


def test_a_power_cut(crowd):
    """Everything is gone at once, and the exec root with it: what has a policy comes back, with its network."""
    before = states(crowd)
    crowd.stop(9)
    monitors = [read(path) for path in glob.glob(os.path.join(crowd.exec_root, "run", "*", "monitor.pid"))]
    for pid in [*monitors, *(pid for pid, *_ in before.values())]:
        with contextlib.suppress(ProcessLookupError):  # the end of its namespace's first process may have taken it
            os.kill(pid, 9)
    shutil.rmtree(crowd.exec_root)
    crowd.start()
    wanted = {name for name in before if int(name[2:]) % 2}
    deadline = time.monotonic() + patient(30)
    while set(after := states(crowd)) != wanted or not all(pid for pid, *_ in after.values()):  # 0: about to restart
        assert time.monotonic() < deadline, sorted(after)
        time.sleep(0.1)
    assert crowd.client("ps", "-aq", "--filter", "exited=137").out.count("\n") == MANY - len(wanted)
    for name, (pid, *_) in after.items():
        with open(f"/proc/{pid}/net/dev", encoding="ascii") as f:
            assert ("eth0" in f.read()) == (int(name[2:]) % 3 != 0), name


def test_policies_do_not_wait_for_a_monitor_that_is_stopped(own_engine):
    """What is to be started starts while a container is still to be taken over, and both keep their networks."""
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("run", "-d", "--name", "slow", "busybox", "sleep", "1000")
    own_engine.client("run", "-d", "--name", "back", "--restart", "always", "busybox", "sleep", "1000")
    slow, back = (own_engine.client("inspect", "-f", "{{.Id}} {{.State.Pid}}", n).out.split() for n in ("slow", "back"))
    own_engine.stop(9)
    runs = os.path.join(own_engine.exec_root, "run")
    os.kill(int(back[1]), 9)
    until(lambda: os.path.exists(os.path.join(runs, back[0], "exit.json")), "the monitor writes how it ended")
    monitor = read(os.path.join(runs, slow[0], "monitor.pid"))
    os.kill(monitor, signal.SIGSTOP)
    try:
        own_engine.start()
        until(lambda: events(own_engine, back[0]).count("start") == 2, "its policy starts it")
    finally:
        os.kill(monitor, signal.SIGCONT)
    until(lambda: own_engine.client("exec", "slow", "true", check=False).code == 0, "it is not taken over")
    for name in ("slow", "back"):
        until(lambda name=name: "inet " in interface(own_engine, name), f"{name} has no network")


def interface(engine, name: str) -> str:
    return engine.client("exec", name, "ip", "addr", "show", "eth0", check=False).out


def events(engine, container_id: str) -> list[str]:
    """What the daemon's journal says of a container."""
    with open(os.path.join(engine.data_root, "events.jsonl"), encoding="utf-8") as f:
        return [e["Action"] for e in map(json.loads, f) if e["Actor"]["ID"] == container_id]


def read(path: str) -> int:
    """The number in a file."""
    with open(path, encoding="ascii") as f:
        return int(f.read())
