"""``--timing``: the steps of a start, told by all the processes that take part in it."""

from __future__ import annotations

import pytest

from tests.support.rawapi import Api

pytestmark = pytest.mark.ketch_only

FIRST_PROCESS = [
    "init.bundle-read",
    "init.namespaces",
    "init.cgroup-made",
    "init.cgroup-joined",
    "init.root-attached",
    "init.root-entered",
    "init.mounted",
    "init.identity-set",
    "init.ready",
]
MONITOR = ["monitor.begun", "monitor.listening", "monitor.created-sent", "monitor.go-given", "monitor.program-runs"]
KETCHD = [
    "start.bundle-written",
    "start.launcher-asked",
    "start.created",
    "start.wired",
    "start.running",
    "start.saved",
]


def steps(text: str) -> dict[str, tuple[float, str]]:
    """step: (ms since the request, process); the second column is the time since the step before."""
    head, *rows = [line.split() for line in text.splitlines()]
    assert head == ["AT", "+", "PROCESS", "STEP"]
    assert float(rows[-1][0]) == pytest.approx(sum(float(row[1]) for row in rows), abs=0.01 * len(rows))
    return {row[-1]: (float(row[0]), " ".join(row[2:-1])) for row in rows}


@pytest.mark.parametrize("network", ["bridge", "host"])  # with the spare, and without
def test_run(engine, network):
    done = engine.ketch("run", "--rm", "--timing", "--network", network, "busybox", "echo", "said")
    assert done.out == "said\n"
    found = steps(done.err)
    for process, names in ("first process", FIRST_PROCESS), ("monitor", MONITOR), ("ketchd", KETCHD):
        times = [found[name][0] for name in names]
        assert times == sorted(times), names
        assert {found[name][1] for name in names} == {process}
    assert ("launcher.asked" in found) is ("monitor.forked" in found) is ("init.told" not in found)
    assert network == "bridge" or "launcher.asked" in found
    assert found["start.launcher-asked"][0] <= found["init.ready"][0] <= found["start.running"][0]
    assert ("network.wired" in found) is (network == "bridge")
    assert list(found)[-1] == "answered"


def test_start(engine):
    ketch = engine.ketch
    ketch("create", "--name", "timed", "busybox", "sleep", "100")
    started = ketch("start", "--timing", "timed")
    assert started.out == "timed\n"
    assert set(FIRST_PROCESS + MONITOR + KETCHD) <= set(steps(started.err))
    assert ketch("run", "-d", "busybox", "true").err == ""


def test_it_is_an_ordinary_start(engine):
    api = Api(engine.socket)
    engine.ketch("create", "--name", "timed", "busybox", "sleep", "100")
    status, account = api("POST", "/ketch/containers/timed/start")
    assert (status, set(account), set(account["Steps"][0])) == (200, {"Steps", "Took"}, {"Step", "At"})
    assert api("POST", "/ketch/containers/timed/start")[0] == 304
    assert api("POST", "/ketch/containers/nobody/start")[0] == 404
    engine.ketch("create", "--name", "broken", "busybox", "/nowhere")
    assert api("POST", "/ketch/containers/broken/start")[0] == 400
    assert api("POST", "/containers/broken/start")[0] == 400


@pytest.mark.parametrize("command", [("run", "-d", "--timing", "--wait-healthy"), ("start", "-a", "--timing")])
def test_flags_that_do_not_go_together(engine, command):
    done = engine.ketch(*command, "busybox", check=False)
    assert done.code == 125 if command[0] == "run" else done.code == 1
    assert "conflicting options" in done.err
