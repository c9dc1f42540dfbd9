"""Compose v2 with an ordinary file: several networks, aliases, fixed addresses, ports, named volumes."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.support.waiting import patient

FILE = """
services:
  web:
    image: busybox
    command: [sh, -c, "mkdir -p /www && echo moored > /www/index.html && exec httpd -f -p 80 -h /www"]
    ports: ["127.0.0.1::80"]
    networks:
      front: {aliases: [site]}
      back: {ipv4_address: 10.66.0.10}
    volumes: ["data:/data", "./:/project:ro", "type: tmpfs"]
  worker:
    image: busybox
    command: [sleep, "1000"]
    depends_on: [web]
    networks: [back]
    volumes: ["data:/data"]
    deploy: {replicas: 2}
  visitor:
    image: busybox
    command: [sleep, "1000"]
    networks: [front]
    extra_hosts: ["me.test:host-gateway"]
networks:
  front: {}
  back:
    internal: true
    ipam: {config: [{subnet: 10.66.0.0/24}]}
volumes:
  data: {labels: {kind: test}}
""".replace(', "type: tmpfs"', "")


@pytest.fixture
def compose(engine, tmp_path):
    """``docker compose`` in a directory with the file, brought down at the end."""
    (tmp_path / "compose.yaml").write_text(FILE, encoding="utf-8")

    def run(*args: str) -> str:
        return engine.docker("compose", "-p", "kt", *args, cwd=tmp_path, timeout=60).out

    yield run
    run("down", "-v", "-t", "0")


def test_up_to_down(engine, compose):
    docker = engine.docker
    compose("up", "-d")
    rows = [json.loads(line) for line in compose("ps", "--format", "json").splitlines()]
    assert sorted((r["Service"], r["State"]) for r in rows) == [
        ("visitor", "running"),
        ("web", "running"),
        ("worker", "running"),
        ("worker", "running"),
    ]
    # Names: services, aliases, replicas that share a name, and who is on which network.
    assert compose("exec", "-T", "worker", "wget", "-qO-", "http://web/") == "moored\n"
    assert compose("exec", "-T", "visitor", "wget", "-qO-", "http://site/") == "moored\n"
    assert compose("exec", "-T", "web", "nslookup", "worker").count("Address: 10.66.0.") == 2
    assert docker("exec", "kt-visitor-1", "nslookup", "worker", check=False).code != 0
    assert "me.test" in compose("exec", "-T", "visitor", "cat", "/etc/hosts")
    # The published port, and the fixed address.
    port = compose("port", "web", "80").strip()
    with urllib.request.urlopen(f"http://{port}/", timeout=patient(5)) as answer:
        assert answer.read() == b"moored\n"
    assert "10.66.0.10/24" in compose("exec", "-T", "web", "ip", "-4", "addr")
    # The volume is shared, outlives `down`, and goes with `down -v`.
    compose("exec", "-T", "web", "sh", "-c", "echo kept > /data/x; test -f /project/compose.yaml")
    assert compose("exec", "-T", "--index", "2", "worker", "cat", "/data/x") == "kept\n"
    compose("up", "-d", "--scale", "worker=3")
    assert len(compose("ps", "-q", "worker").split()) == 3
    compose("up", "-d", "--force-recreate", "-t", "0", "web")
    assert compose("exec", "-T", "web", "cat", "/data/x") == "kept\n"
    assert compose("exec", "-T", "worker", "wget", "-qO-", "http://web/") == "moored\n"
    compose("down", "-t", "0")
    assert docker("network", "ls", "-q", "--filter", "label=com.docker.compose.project=kt").out == ""
    assert docker("volume", "ls", "-q", "--filter", "label=kind=test").out == "kt_data\n"
    compose("up", "-d", "web")
    assert compose("exec", "-T", "web", "cat", "/data/x") == "kept\n"
    compose("down", "-v", "-t", "0")
    assert docker("volume", "ls", "-q", "--filter", "label=kind=test").out == ""
