"""Healthchecks and restart policies: what follows from results and exits."""

from __future__ import annotations

import pytest

from ketch.engine.containers import restart_policy
from ketch.engine.execs import health
from ketch.engine.model import merge
from ketch.engine.model.records import (
    Container,
    ContainerConfig,
    Health,
    HealthConfig,
    HealthResult,
    HealthStatus,
    HostConfig,
    RestartPolicy,
    Status,
)
from ketch.oci.config import RunConfig

SECOND = 1_000_000_000
START = 1_000 * SECOND


def result(code: int, at_s: float = 100) -> HealthResult:
    begin = START + int(at_s * SECOND)
    return HealthResult(start=begin, end=begin + 1, exit_code=code)


@pytest.mark.parametrize(
    ("test", "shell", "expected"),
    [
        (None, None, []),
        ([], None, []),
        (["NONE"], None, []),
        (["CMD", "true", "x"], None, ["true", "x"]),
        (["CMD-SHELL", "exit 1"], None, ["/bin/sh", "-c", "exit 1"]),
        (["CMD-SHELL", "exit 1"], ["/bin/ash", "-ec"], ["/bin/ash", "-ec", "exit 1"]),
    ],
)
def test_command(test, shell, expected):
    assert health.command(HealthConfig(test=test), shell) == expected


def test_status_follows_results():
    state, config = Health(), HealthConfig(retries=2)
    seen = []
    for code in (1, 0, 1, 1, 1, 0):
        changed = health.judge(state, config, result(code), START)
        seen.append((state.status, state.failing_streak, changed))
    assert seen == [
        ("starting", 1, False),
        ("healthy", 0, True),
        ("healthy", 1, False),
        ("unhealthy", 2, True),
        ("unhealthy", 3, False),
        ("healthy", 0, True),
    ]
    assert [r.exit_code for r in state.log] == [0, 1, 1, 1, 0]  # the last five


def test_failures_in_the_start_period_do_not_count():
    state, config = Health(), HealthConfig(retries=1, start_period=10 * SECOND)
    assert not health.judge(state, config, result(1, at_s=9.9), START)
    assert (state.status, state.failing_streak, len(state.log)) == ("starting", 0, 1)
    assert health.judge(state, config, result(1, at_s=10), START)
    assert state.status == "unhealthy"


def test_failures_count_once_it_was_healthy_even_in_the_start_period():
    state, config = Health(), HealthConfig(retries=1, start_period=10 * SECOND)
    assert health.judge(state, config, result(0, at_s=1), START)
    assert health.judge(state, config, result(1, at_s=2), START)
    assert state.status == "unhealthy"


def test_pauses():
    config = HealthConfig(interval=7 * SECOND, start_period=20 * SECOND, start_interval=SECOND)
    assert health.pause_before(config, HealthStatus.STARTING, 5 * SECOND) == SECOND
    assert health.pause_before(config, HealthStatus.STARTING, 20 * SECOND) == 7 * SECOND
    assert health.pause_before(config, HealthStatus.HEALTHY, 5 * SECOND) == 7 * SECOND
    assert health.pause_before(HealthConfig(), HealthStatus.STARTING, 0) == 30 * SECOND
    assert health.pause_before(HealthConfig(start_period=SECOND), HealthStatus.STARTING, 0) == 5 * SECOND


def test_image_fills_what_the_user_did_not_say():
    image = RunConfig(cmd=["x"], healthcheck={"Test": ["CMD", "a"], "Interval": 5, "Retries": 4})
    merged = merge.merge(ContainerConfig(image="i", healthcheck=HealthConfig(interval=9)), image).healthcheck
    assert merged is not None
    assert (merged.test, merged.interval, merged.retries) == (["CMD", "a"], 9, 4)
    off = merge.merge(ContainerConfig(image="i", healthcheck=HealthConfig(test=["NONE"])), image).healthcheck
    assert off is not None and health.command(off, None) == []


def container(policy: str, code: int = 0, *, count: int = 0, most: int = 0, stopped: bool = False) -> Container:
    one = Container(
        id="a" * 64,
        name="n",
        created=1,
        image_id="i",
        image_ref="i",
        config=ContainerConfig(),
        host=HostConfig(restart_policy=RestartPolicy(name=policy, maximum_retry_count=most)),
        restart_count=count,
        stopped_by_user=stopped,
    )
    one.state.status, one.state.exit_code = Status.EXITED, code
    return one


@pytest.mark.parametrize(
    ("one", "now", "boot"),
    [
        (container("no", 1), False, False),
        (container("", 1), False, False),
        (container("always", 0), True, True),
        (container("always", 0, stopped=True), False, True),
        (container("unless-stopped", 0), True, True),
        (container("unless-stopped", 0, stopped=True), False, False),
        (container("on-failure", 0), False, False),
        (container("on-failure", 3), True, True),
        (container("on-failure", 3, stopped=True), False, False),
        (container("on-failure", 3, count=1, most=2), True, True),
        (container("on-failure", 3, count=2, most=2), False, False),
    ],
)
def test_restart_rules(one, now, boot):
    assert (restart_policy.wanted(one), restart_policy.wanted_at_boot(one)) == (now, boot)


def test_never_started_is_not_started_at_boot():
    one = container("always")
    one.state.status = Status.CREATED
    assert not restart_policy.wanted_at_boot(one)


def test_pauses_double_up_to_a_minute():
    pauses, last = [], 0.0
    for _ in range(12):
        last = restart_policy.next_pause(last, ran_s=0.01)
        pauses.append(round(last, 1))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]
    assert restart_policy.next_pause(last, ran_s=10) == 0.1
