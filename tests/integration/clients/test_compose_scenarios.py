"""Compose v2 with what projects really use: health, completion, restarts, profiles, env files, configs and secrets."""

from __future__ import annotations

import json

import pytest

from tests.support.waiting import until

SHOP = """
name: shop
x-common: &common
  image: busybox
  pull_policy: never
  stop_grace_period: 0s
services:
  migrate:
    <<: *common
    command: [sh, -c, "echo migrated > /data/schema; echo migration done"]
    volumes: ["data:/data"]
  db:
    <<: *common
    command: [sh, -c, "sleep 0.5; test -f /data/schema && touch /tmp/up; exec httpd -f -p 5432 -h /data"]
    volumes: ["data:/data"]
    depends_on: {migrate: {condition: service_completed_successfully}}
    healthcheck: {test: "test -e /tmp/up", interval: 0.2s, timeout: 2s, retries: 50}
  web:
    <<: *common
    command: [sh, -c, "echo got $$(wget -qO- http://db:5432/schema) as $$ROLE; exec sleep 1000"]
    env_file: [web.env]
    environment: {COLOUR: "${COLOUR:-blue}"}
    depends_on: {db: {condition: service_healthy, restart: true}}
    configs: [{source: settings, target: /etc/settings.ini}]
    secrets: [password]
    labels: {tier: front}
  flaky:
    <<: *common
    command: [sh, -c, "echo try >> /data/tries; test $$(wc -l < /data/tries) -ge 3"]
    volumes: ["data:/data"]
    restart: on-failure
    depends_on: {migrate: {condition: service_completed_successfully}}
  debug:
    <<: *common
    command: [sleep, "1000"]
    profiles: [tools]
configs:
  settings: {file: settings.ini}
secrets:
  password: {file: password.txt}
volumes:
  data: {}
"""


@pytest.fixture
def compose(private_engine, tmp_path):
    """``docker compose`` in a project's directory."""
    for name, text in (
        ("compose.yaml", SHOP),
        ("web.env", "ROLE=shop keeper\nUNUSED=\n"),
        ("settings.ini", "[shop]\nopen=yes\n"),
        ("password.txt", "hunter2"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")

    def run(*args: str, code: int = 0, **environment: str) -> str:
        done = private_engine.docker("compose", *args, check=False, timeout=60, cwd=tmp_path, **environment)
        assert done.code == code, done.out + done.err
        return done.out

    return run


def rows(compose) -> dict[str, dict]:
    """What ``ps -a`` knows, by container name."""
    return {row["Name"]: row for row in map(json.loads, compose("ps", "-a", "--format", "json").splitlines())}


def test_a_project_from_up_to_down(private_engine, compose):
    docker = private_engine.docker
    compose("up", "-d", "--wait", "db", "web")
    seen = rows(compose)
    assert {name: row["State"] for name, row in seen.items()} == {
        "shop-db-1": "running",
        "shop-migrate-1": "exited",
        "shop-web-1": "running",
    }
    assert (seen["shop-db-1"]["Health"], seen["shop-migrate-1"]["ExitCode"]) == ("healthy", 0)
    assert seen["shop-web-1"]["Labels"].split(",").count("tier=front") == 1
    # The order was kept: the page that web asked for was there.
    assert "got migrated as shop keeper" in compose("logs", "--no-color", "--no-log-prefix", "web")
    assert "migrate-1  | migration done" in compose("logs", "--no-color", "migrate")
    # Configurations, secrets and environment.
    inside = ["exec", "-T", "web"]
    assert compose(*inside, "cat", "/etc/settings.ini") == "[shop]\nopen=yes\n"
    assert compose(*inside, "cat", "/run/secrets/password") == "hunter2"
    assert compose(*inside, "sh", "-c", "echo $COLOUR $ROLE") == "blue shop keeper\n"
    assert compose(*inside, "sh", "-c", "exit 9", code=9) == ""
    # Stop, start, restart, scale, pause.
    started = docker("inspect", "-f", "{{.State.StartedAt}}", "shop-web-1").out
    compose("restart", "web")
    assert docker("inspect", "-f", "{{.State.StartedAt}}", "shop-web-1").out > started
    compose("up", "-d", "--no-deps", "--scale", "web=3", "--no-recreate", "web")
    assert sorted(n for n in rows(compose) if "web" in n) == ["shop-web-1", "shop-web-2", "shop-web-3"]
    compose("pause", "web")
    assert {r["State"] for n, r in rows(compose).items() if "web" in n} == {"paused"}
    compose("unpause", "web")
    compose("stop")
    assert {r["State"] for r in rows(compose).values()} == {"exited"}
    compose("start", "db")
    until(lambda: rows(compose)["shop-db-1"]["Health"] == "healthy", "it is healthy again")
    compose("up", "-d", "--no-deps", "--scale", "web=1", "web", COLOUR="red")
    assert compose(*inside, "sh", "-c", "echo $COLOUR") == "red\n"
    assert compose("top", "web").count("sleep 1000") == 1
    compose("rm", "-fs", "web")
    compose("down", "-v")
    assert docker("ps", "-aq").out + docker("volume", "ls", "-q").out == ""


def test_restarts_on_failure_end_with_success(private_engine, compose):
    compose("up", "-d", "flaky")
    state = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}"
    docker = private_engine.docker
    until(lambda: docker("inspect", "-f", state, "shop-flaky-1").out == "exited 0 2\n", "it ends with success at last")
    assert docker("run", "--rm", "-v", "shop_data:/d", "busybox", "wc", "-l", "/d/tries").out.split()[0] == "3"
    compose("down", "-v")


def test_profiles_and_one_off_commands(compose):
    compose("up", "-d", "migrate")
    assert "shop-debug-1" not in rows(compose)
    compose("--profile", "tools", "up", "-d", "debug")
    assert rows(compose)["shop-debug-1"]["State"] == "running"
    assert compose("run", "--rm", "--no-deps", "-T", "-e", "X=1", "web", "sh", "-c", "echo $X $COLOUR") == "1 blue\n"
    compose("run", "--rm", "--no-deps", "-T", "web", "sh", "-c", "exit 4", code=4)
    compose("kill", "debug")
    assert rows(compose)["shop-debug-1"]["ExitCode"] == 137
    compose("--profile", "tools", "down", "-v")


def test_a_dependency_that_fails(compose, tmp_path):
    broken = SHOP.replace("echo migrated > /data/schema; echo migration done", "exit 3")
    (tmp_path / "compose.yaml").write_text(broken, encoding="utf-8")
    compose("up", "-d", "db", code=1)
    assert rows(compose)["shop-migrate-1"]["ExitCode"] == 3
    assert rows(compose)["shop-db-1"]["State"] == "created"
    unhealthy = SHOP.replace("test -e /tmp/up", "false").replace("retries: 50", "retries: 2")
    (tmp_path / "compose.yaml").write_text(unhealthy, encoding="utf-8")
    compose("up", "-d", "--wait", "db", code=1)
    assert rows(compose)["shop-db-1"]["Health"] == "unhealthy"
    compose("down", "-v")
