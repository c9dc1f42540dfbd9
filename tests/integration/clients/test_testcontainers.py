"""testcontainers, as tests of other projects use it: wait strategies, networks, volumes, logs, Compose."""

from __future__ import annotations

import os
import time
import urllib.request

import docker.errors
import pytest
from docker.types import Healthcheck
from testcontainers.compose import DockerCompose
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import (
    CompositeWaitStrategy,
    ExecWaitStrategy,
    HealthcheckWaitStrategy,
    HttpWaitStrategy,
    LogMessageWaitStrategy,
    PortWaitStrategy,
)

from tests.support import peers
from tests.support.waiting import patient

SECOND = 1_000_000_000
SERVE = "mkdir -p /www && echo moored > /www/index.html && echo serving && exec httpd -f -p 80 -h /www"


@pytest.fixture(autouse=True)
def world(private_engine, monkeypatch):
    """The settings of somebody who uses this engine; the reaper's image cannot be had here."""
    for name, value in private_engine.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(testcontainers_config, "_ryuk_disabled", True)
    monkeypatch.setattr(testcontainers_config, "sleep_time", 0.05)
    monkeypatch.setattr(testcontainers_config, "max_tries", 200)
    return private_engine


def shell(script: str) -> DockerContainer:
    """A container that runs a script."""
    return DockerContainer("busybox").with_command(["sh", "-c", script])


def fetch(address: str) -> str:
    with urllib.request.urlopen(address, timeout=patient(5)) as answer:
        return answer.read().decode()


def test_waiting_for_a_log_line():
    script = "sleep 0.2; echo 'up and running'; echo oops >&2; sleep 1000"
    with shell(script).waiting_for(LogMessageWaitStrategy("running")) as box:
        out, err = box.get_logs()
        assert out == b"up and running\n"
        assert box.exec(["sh", "-c", "echo $((6 * 7)); exit 3"]) == (3, b"42\n")
        deadline = time.monotonic() + patient(10)
        while err != b"oops\n":
            assert time.monotonic() < deadline
            out, err = box.get_logs()


def test_waiting_for_a_port_and_for_http():
    ready = CompositeWaitStrategy(PortWaitStrategy(80), HttpWaitStrategy(80).for_status_code(200))
    with shell(SERVE).with_exposed_ports(80).waiting_for(ready) as box:
        address = f"http://{box.get_container_host_ip()}:{box.get_exposed_port(80)}/"
        assert fetch(address) == "moored\n"
        assert box.get_container_info().State.Running


def test_waiting_for_a_healthcheck():
    check = Healthcheck(test=["CMD", "test", "-e", "/tmp/ready"], interval=SECOND // 5, timeout=SECOND, retries=50)
    box = shell("sleep 0.5; touch /tmp/ready; sleep 1000").with_kwargs(healthcheck=check)
    with box.waiting_for(HealthcheckWaitStrategy()):
        assert box.get_wrapped_container().health == "healthy"
    never = Healthcheck(test=["CMD", "false"], interval=SECOND // 5, timeout=SECOND, retries=1)
    with pytest.raises(RuntimeError, match="unhealthy"):
        with shell("sleep 1000").with_kwargs(healthcheck=never).waiting_for(HealthcheckWaitStrategy()):
            pytest.fail("it is never healthy")


def test_two_services_on_a_network():
    with Network() as network:
        server = shell(SERVE).with_network(network).with_network_aliases("site", "web")
        with server.waiting_for(LogMessageWaitStrategy("serving")):
            asker = shell("until wget -qO- http://site/; do sleep 0.05; done; nslookup web; sleep 1000")
            with asker.with_network(network).waiting_for(LogMessageWaitStrategy("Name:")) as client:
                assert client.get_logs()[0].startswith(b"moored\n")
                assert client.exec("wget -qO- http://web/").output == b"moored\n"


def test_volumes_environment_and_files(tmp_path):
    (tmp_path / "in").write_text("from the host\n", encoding="utf-8")
    (tmp_path / "env").write_text("COLOUR=red\nSIZE=9\n", encoding="utf-8")
    box = (
        shell("cat /given/in; env; df /scratch | tail -1; echo made > /out/file; echo done; sleep 1000")
        .with_volume_mapping(tmp_path, "/given")
        .with_volume_mapping("kt-out", "/out", "rw")
        .with_tmpfs_mount("/scratch", "size=8m")
        .with_env("SHAPE", "round")
        .with_env_file(tmp_path / "env")
        .with_name("named")
        .waiting_for(LogMessageWaitStrategy("done"))
    )
    with box:
        out = box.get_logs()[0].decode()
        assert out.startswith("from the host\n")
        assert {"SHAPE=round", "COLOUR=red", "SIZE=9"} <= set(out.splitlines())
        assert "8192" in out
        assert box.exec("cat /out/file").output == b"made\n"
        assert box.exec("touch /given/new").exit_code != 0
        client = box.get_docker_client().client
        assert client.containers.get("named").id == box.get_container_id()
    client = docker.DockerClient(base_url=os.environ["DOCKER_HOST"])
    assert client.containers.list(all=True) == []
    client.volumes.get("kt-out").remove()
    client.close()


def test_an_end_and_a_failure():
    with shell("exit 7") as box:
        assert box.wait() == 7
    with pytest.raises(docker.errors.APIError, match="no-such-program"):
        with DockerContainer("busybox").with_command("no-such-program"):
            pytest.fail("it cannot have started")
    with shell("touch /tmp/x; sleep 1000").waiting_for(ExecWaitStrategy(["test", "-e", "/tmp/x"])) as box:
        assert box.status in ("created", "running")


def test_compose(world, tmp_path):
    peers.need()
    (tmp_path / "compose.yaml").write_text(
        f"""
name: kt-tc
services:
  web:
    image: busybox
    command: [sh, -c, "{SERVE}"]
    stop_grace_period: 0s
    ports: ["80"]
    healthcheck: {{test: [CMD, wget, -qO-, "http://127.0.0.1/"], interval: 0.2s, timeout: 2s, retries: 50}}
  asker:
    image: busybox
    command: [sh, -c, "wget -qO- http://web/; sleep 1000"]
    stop_grace_period: 0s
    depends_on: {{web: {{condition: service_healthy}}}}
""",
        encoding="utf-8",
    )
    with DockerCompose(tmp_path) as compose:
        host, port = compose.get_service_host_and_port("web", 80)
        assert fetch(f"http://{host}:{port}/") == "moored\n"
        out, err, code = compose.exec_in_container(["sh", "-c", "echo inside"], "web")
        assert (out, code) == ("inside\n", 0), err
        assert "moored" in compose.get_logs("asker")[0]
        assert {c.Service for c in compose.get_containers()} == {"web", "asker"}
