"""Networks as the clients offer them: published ports, names, none, host."""

from __future__ import annotations

import contextlib
import json
import socket

import pytest

from tests.support.containers import SERVE, fetch


def test_published_port(client):
    client("run", "-d", "--name", "web", "-p", "127.0.0.1:0:80", *SERVE)
    address = client("port", "web", "80/tcp").out.strip()
    assert address.startswith("127.0.0.1:")
    assert fetch(int(address.rpartition(":")[2])) == "moored\n"
    assert f"{address}->80/tcp" in client("ps").out
    client("rm", "-f", "web")
    with contextlib.closing(socket.socket()) as s:
        assert s.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) != 0


def test_published_on_all_addresses(client):
    client("run", "-d", "--name", "web", "-P", "--expose", "80", *SERVE)
    ports = [line.split(" -> ")[1] for line in client("port", "web").out.splitlines()]
    assert ports[0].startswith("0.0.0.0:")
    assert fetch(int(ports[0].rpartition(":")[2])) == "moored\n"


def test_port_that_is_taken(client):
    client("run", "-d", "--name", "web", "-p", "127.0.0.1:0:80", *SERVE)
    address = client("port", "web", "80").out.strip()
    result = client("run", "--name", "late", "-p", f"{address}:80", *SERVE, check=False)
    assert result.code == 125
    assert "port is already allocated" in result.err
    assert client("ps", "-aq", "--filter", "name=late", "--filter", "status=created").out != ""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as s:
        port = s.getsockname()[1]
        result = client("run", "--rm", "-p", f"127.0.0.1:{port}:80", *SERVE, check=False)
    assert result.code == 125
    assert "address already in use" in result.err or "already allocated" in result.err


def test_containers_reach_each_other(client):
    client("run", "-d", "--name", "web", *SERVE)
    address = client("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "web").out.strip()
    script = f"until wget -qO- http://{address}/; do sleep 0.05; done"
    assert client("run", "--rm", "busybox", "sh", "-c", script).out == "moored\n"


def test_no_network(client):
    out = client("run", "--rm", "--network", "none", "busybox", "ip", "-o", "link").out
    assert [line.split(": ")[1] for line in out.splitlines()] == ["lo"]
    assert "UP" in out


def test_network_of_the_host(client):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        listening = f":{server.getsockname()[1]:04X} 00000000:0000 0A"
        assert listening in client("run", "--rm", "--network", "host", "busybox", "cat", "/proc/net/tcp").out
    assert client("run", "--rm", "--network", "host", "busybox", "hostname").out.strip() == socket.gethostname()


def test_network_of_another_container(client):
    client("run", "-d", "--name", "web", *SERVE)
    script = "until wget -qO- http://127.0.0.1/; do sleep 0.05; done"
    assert client("run", "--rm", "--network", "container:web", "busybox", "sh", "-c", script).out == "moored\n"


def test_own_files(client):
    out = client(
        "run",
        "--rm",
        "-h",
        "berth",
        "--dns",
        "192.0.2.53",
        "busybox",
        "cat",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/hostname",
    ).out
    assert "nameserver 192.0.2.53" in out
    assert any(line.endswith("\tberth") for line in out.splitlines())
    assert out.splitlines()[-1] == "berth"


def test_unknown_network(client):
    result = client("run", "--rm", "--network", "no-such", "busybox", check=False)
    assert result.code == 125
    assert "no-such" in result.err
    assert client("ps", "-aq", "--filter", "status=running").out == ""


@pytest.mark.ketch_only
def test_inspect_shows_the_endpoint(client):
    client("run", "-d", "--name", "web", "-p", "127.0.0.1:0:80/tcp", *SERVE)
    settings = json.loads(client("inspect", "web").out)[0]["NetworkSettings"]
    endpoint = settings["Networks"]["bridge"]
    assert endpoint["IPPrefixLen"] == 16
    assert endpoint["Gateway"].rpartition(".")[0] == endpoint["IPAddress"].rpartition(".")[0] or endpoint["Gateway"]
    assert settings["Ports"]["80/tcp"][0]["HostIp"] == "127.0.0.1"
