"""Healthchecks of real containers, and what follows when they fail."""

from __future__ import annotations

import json
import shlex
import signal

import pytest

from tests.support.containers import FAST
from tests.support.rawapi import Api
from tests.support.waiting import until


def health(client, name: str) -> dict:
    return json.loads(client("inspect", "-f", "{{json .State.Health}}", name).out)


def events_of(client, name: str):
    """Every event of a container, from its beginning on."""
    container = client("inspect", "-f", "{{.Id}}", name).out.strip()
    return client.piped("events", "--since", "0", "--filter", f"container={container}", "--format", "{{.Action}}")


def follow(client, name: str, *statuses: str) -> None:
    """Wait until these statuses were announced, in this order."""
    with events_of(client, name) as events:
        for status in statuses:
            events.expect(f"health_status: {status}\n")


def test_healthy_then_unhealthy_then_healthy(client):
    client("run", "-d", "--name", "web", "--health-cmd", "echo probe; cat /ok", *FAST, "busybox", "sleep", "1000")
    assert "(health: starting)" in client("ps").out or "(unhealthy)" in client("ps").out
    client("exec", "web", "touch", "/ok")
    follow(client, "web", "healthy")
    assert "(healthy)" in client("ps").out
    assert client("ps", "-q", "--filter", "health=healthy").out
    assert not client("ps", "-q", "--filter", "health=unhealthy").out
    client("exec", "web", "rm", "/ok")
    follow(client, "web", "healthy", "unhealthy")
    state = health(client, "web")
    assert state["Status"] == "unhealthy"
    assert state["FailingStreak"] >= 2
    assert len(state["Log"]) <= 5
    assert (state["Log"][-1]["ExitCode"], state["Log"][-1]["Output"][:6]) == (1, "probe\n")
    client("exec", "web", "touch", "/ok")
    follow(client, "web", "healthy", "unhealthy", "healthy")
    assert health(client, "web")["FailingStreak"] == 0


def test_without_a_check_there_is_no_health(client):
    client("run", "-d", "--name", "plain", "--no-healthcheck", "--name", "plain", "busybox", "sleep", "1000")
    assert client("inspect", "-f", "{{json .State}}", "plain").out.find('"Health"') == -1
    assert client("ps", "-q", "--filter", "health=none").out


def test_a_check_of_no_known_kind_is_none(engine):
    api = Api(engine.socket)
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "Healthcheck": {"Test": ["true"]}}
    assert api("POST", "/containers/create", body, name="odd")[0] == 201
    api.must("POST", "/containers/odd/start")
    odd = api.must("GET", "/containers/odd/json")
    assert odd["Config"]["Healthcheck"]["Test"] == ["true"] and "Health" not in odd["State"]


def test_timeout_kills_the_check(client):
    client(
        *shlex.split(
            "run -d --name slow --health-cmd 'echo partial; sleep 77' --health-interval 10ms --health-timeout 100ms "
            "--health-retries 1 busybox sleep 1000"
        ),
    )
    follow(client, "slow", "unhealthy")
    entry = health(client, "slow")["Log"][-1]
    assert entry["ExitCode"] == -1
    assert entry["Output"].startswith("Health check exceeded timeout (100ms)")
    said = "Health check exceeded timeout (100ms): partial\n"
    until(lambda: any(one["Output"] == said for one in health(client, "slow")["Log"]), "a check with its output")
    client("pause", "slow")
    client("unpause", "slow")
    assert client("top", "slow").out.count("sleep 77") <= 1  # those before are dead


def test_output_is_cut(client):
    client("run", "-d", "--name", "loud", "--health-cmd", "yes | head -c 100000", *FAST, "busybox", "sleep", "1000")
    follow(client, "loud", "healthy")
    assert len(health(client, "loud")["Log"][-1]["Output"]) == 4096 + 3


def test_start_period(client):
    client(
        *shlex.split(
            "run -d --name young --health-cmd false --health-interval 20ms --health-retries 1 "
            "--health-start-period 1h --health-start-interval 10ms busybox sleep 1000"
        ),
    )
    with events_of(client, "young") as events:
        for _ in range(3):
            events.expect("exec_die")
    state = health(client, "young")
    assert (state["Status"], state["FailingStreak"]) == ("starting", 0)
    assert state["Log"]


def test_stop_and_start_again(client):
    client("run", "-d", "--name", "again", "--health-cmd", "true", *FAST, "busybox", "sleep", "1000")
    follow(client, "again", "healthy")
    client("stop", "-t", "0", "again")
    assert health(client, "again")["Status"] == "unhealthy"
    client("start", "again")
    follow(client, "again", "healthy", "healthy")


def test_checks_stop_with_a_pause(client):
    client("run", "-d", "--name", "still", "--health-cmd", "true", *FAST, "busybox", "sleep", "1000")
    follow(client, "still", "healthy")
    client("pause", "still")
    assert health(client, "still")["Status"] == "unhealthy"
    before = health(client, "still")["Log"]
    client("unpause", "still")
    follow(client, "still", "healthy", "healthy")
    assert health(client, "still")["Log"] != before


@pytest.mark.ketch_only
@pytest.mark.parametrize(
    ("action", "restarts", "status"),
    [("kill", 1, "running"), ("restart", 0, "running"), ("stop", 0, "exited"), ("none", 0, "running")],
)
def test_on_failure(engine, action, restarts, status):
    ketch = engine.ketch
    policy = ("--restart", "on-failure") if action == "kill" else ()
    script = "test -e /was || { touch /was; sleep 1000; }; touch /ok; sleep 1000"
    ketch(
        "run",
        "-d",
        "--name",
        "sick",
        *policy,
        "--health-cmd",
        "cat /ok",
        *FAST,
        "--health-on-failure",
        action,
        "--stop-timeout",
        "0",
        "busybox",
        "sh",
        "-c",
        script,
    )
    if action in ("kill", "restart"):
        follow(ketch, "sick", "unhealthy", "healthy")
    elif action == "stop":
        assert ketch("wait", "sick").out == "137\n"
    else:
        follow(ketch, "sick", "unhealthy")
    shown = ketch("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "sick").out
    assert shown == f"{status} {restarts}\n"
    assert json.loads(ketch("inspect", "sick").out)[0]["Config"]["Healthcheck"]["OnFailure"] == action


@pytest.mark.ketch_only
def test_bad_settings_are_refused(engine):
    bad = engine.ketch("create", "--health-cmd", "x", "--health-on-failure", "explode", "busybox", check=False)
    assert bad.code == 1 and "use none, kill, restart or stop" in bad.err
    bad = engine.docker("create", "--health-cmd", "x", "--health-interval", "1us", "busybox", check=False)
    assert bad.code != 0 and "cannot be less than 1ms" in bad.err


def test_checks_go_on_after_a_crash_of_the_daemon(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    docker = own_engine.docker
    docker("run", "-d", "--name", "web", "--health-cmd", "cat /ok", *FAST, "busybox", "sleep", "1000")
    docker("exec", "web", "touch", "/ok")
    follow(docker, "web", "healthy")
    own_engine.stop(signal.SIGKILL)
    own_engine.start()
    assert health(docker, "web")["Status"] == "healthy"
    docker("exec", "web", "rm", "/ok")
    follow(docker, "web", "healthy", "unhealthy")  # the journal has the first one, from before
