"""``--metrics-addr``: what Prometheus reads of an engine and its containers, and the dashboard that shows it."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only
DASHBOARD = os.path.join(os.path.dirname(__file__), "../../../docs/grafana/ketch.json")
DOCUMENT = os.path.join(os.path.dirname(__file__), "../../../docs/metrics.md")
PROJECT = 'a "b"\n\\c'


class Scraped:
    """The answer of an engine's ``/metrics``."""

    def __init__(self, engine) -> None:
        self.port = int(re.findall(r"metrics at http://127\.0\.0\.1:(\d+)/metrics", engine.log())[-1])

    def ask(self, method: str = "GET", path: str = "/metrics", **headers: str) -> tuple[int, str, str]:
        """(status, type of the content, text)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patient(20))
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()

    def families(self):
        """All families, by name."""
        return {family.name: family for family in text_string_to_metric_families(self.ask()[2])}

    def value(self, metric: str, /, **labels: str) -> float | None:
        """The one sample that has these labels."""
        found = [
            sample.value
            for family in self.families().values()
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        ]
        assert len(found) <= 1, found
        return found[0] if found else None


@pytest.fixture(scope="module")
def scraped(file_engine):
    file_engine.extra = ["--metrics-addr", "127.0.0.1:0"]
    file_engine.start()
    file_engine.add_busybox()
    return Scraped(file_engine)


def test_an_engine_and_its_containers(file_engine, scraped):
    docker, value = file_engine.docker, scraped.value

    def actions() -> dict[str, float]:
        samples = scraped.families()["engine_daemon_container_actions_seconds"].samples
        return {sample.labels["action"]: sample.value for sample in samples if sample.name.endswith("_count")}

    before = actions()
    labels = ("--label", f"com.docker.compose.project={PROJECT}", "--label", "com.docker.compose.service=web")
    health = ("--health-cmd", "false", "--health-interval", "100ms", "--health-retries", "1")
    busy = "while :; do :; done & dd if=/dev/zero of=/dev/null bs=1M count=10; wait"
    web = docker("run", "-d", "--name", "web", "--pids-limit", "50", *labels, *health, "busybox", "sh", "-c", busy)
    docker("run", "--name", "ended", "busybox", "sh", "-c", "exit 3", check=False)
    docker("create", "--name", "new", "busybox")
    docker("diff", "ended")

    assert value(
        "ketch_container_info", name="web", id=web.out.strip(), image="busybox", project=PROJECT, service="web"
    )
    until(lambda: value("ketch_container_health", name="web", status="unhealthy") == 1, "web to be unhealthy")
    until(lambda: (value("ketch_container_cpu_seconds_total", name="web") or 0) > 0.05, "CPU time")
    for name, state, running in (("web", "running", 1), ("ended", "exited", 0), ("new", "created", 0)):
        assert value("ketch_container_state", name=name) == 1
        assert value("ketch_container_state", name=name, state=state) == 1
        assert value("ketch_container_running", name=name) == running
    assert value("ketch_container_memory_bytes", name="web") > 0
    assert value("ketch_container_pids", name="web") >= 2
    assert value("ketch_container_pids_limit", name="web") == 50
    assert value("ketch_container_network_receive_bytes_total", name="web", interface="eth0") is not None
    assert value("ketch_container_exit_code", name="ended") == 3
    assert value("ketch_container_exit_code", name="web") is None
    assert value("ketch_container_memory_bytes", name="ended") is None
    assert value("ketch_container_start_time_seconds", name="new") is None

    states = [value("engine_daemon_container_states_containers", state=state) for state in ("running", "stopped")]
    assert states == [1, 2]
    docker("rm", "-f", "web")
    assert value("ketch_container_state", name="web") is None
    counts = {"create": 3, "start": 2, "changes": 1, "delete": 1, "commit": 0}
    assert {name: count - before[name] for name, count in actions().items()} == counts
    assert value("engine_daemon_health_checks_total") >= value("engine_daemon_health_checks_failed_total") >= 1
    assert value("engine_daemon_events_total") >= 8
    docker("rm", "ended", "new")


def test_restarts_and_builds_are_counted(file_engine, scraped, tmp_path):
    docker, value = file_engine.docker, scraped.value
    docker("run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox", "false")
    until(lambda: value("ketch_container_restarts_total", name="again") == 2, "two restarts")
    for text, works in (("FROM scratch\nLABEL a=b\n", True), ("FROM scratch\nCOPY none /\n", False)):
        (tmp_path / "Dockerfile").write_text(text)
        assert (file_engine.ketch("build", str(tmp_path), check=False).code == 0) is works
    assert value("builder_builds_triggered_total") == 2
    assert value("builder_builds_failed_total", reason="build_failed") == 1
    assert value("builder_builds_failed_total", reason="build_canceled") == 0


def test_what_else_is_asked_there(file_engine, scraped):
    status, kind, text = scraped.ask()
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert text.endswith("\n")
    assert scraped.ask("HEAD")[0::2] == (200, "")
    assert scraped.ask(path="/containers/json")[0::2] == (404, "404 page not found\n")
    assert scraped.ask("POST")[0] == 405
    assert scraped.ask(Host="rebound.example")[0] == 403
    assert scraped.ask(Origin="http://page.example")[0] == 403

    with socket.create_connection(("127.0.0.1", scraped.port), timeout=patient(20)) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert b" 400 " in client.recv(100)
    assert "Traceback" not in file_engine.log()  # which anybody could fill

    file_engine.docker("run", "-d", "--name", "one", "--pids-limit", "9", "--health-cmd", "true", "busybox", "top")
    file_engine.docker("run", "busybox", "false", check=False)
    families = {name + "_total" * (f.type == "counter"): f for name, f in scraped.families().items()}
    with open(DASHBOARD, encoding="utf-8") as f:
        dashboard = json.load(f)
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    named = set(re.findall(r"\b(?:ketch|engine_daemon|builder|process)_\w+", " ".join(queries)))
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) if name not in families else name for name in named}
    assert len(queries) >= 10
    assert plain - families.keys() == set()
    samples = [sample for family in families.values() for sample in family.samples]
    labels = {name: {label for one in samples if one.name == name for label in one.labels} for name in named}
    selectors = re.findall(r"(\w+)\{([^}]*)\}", " ".join(queries))
    asked = {(name, label) for name, chosen in selectors for label in re.findall(r"(\w+)=", chosen)}
    assert {(name, label) for name, label in asked if label not in {*labels[name], "instance", "job"}} == set()
    with open(DOCUMENT, encoding="utf-8") as f:
        told = set(re.findall(r"`((?:ketch|engine_daemon|builder|process)_\w+)", f.read()))
    assert told == families.keys()
