"""Answers to real clients, checked against the API's own description; every endpoint of containers is called."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import socket
from typing import Any

import docker
import pytest

from tests.support.engines import Engine, busybox_tar
from tests.support.fuzzing.contract import EXTRAS, HABITS, Contract, load_description
from tests.support.tap import Tap
from tests.support.waiting import patient

pytestmark = [
    pytest.mark.ketch_only,
]
COMPOSE = """
services:
  web:
    image: busybox
    command: [sleep, "1000"]
    healthcheck: {test: [CMD, "true"], interval: 1s}
    ports: ["127.0.0.1::80"]
    volumes: ["data:/data"]
    links: ["db:store"]
  db:
    image: busybox
    command: [sleep, "1000"]
volumes: {data: {}}
"""


class Tapped:
    """An engine behind a tap: the same clients, and HTTP of our own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.path = os.path.join(engine.root, "tap.sock")
        self.tap = Tap(self.path, engine.socket)

    def docker(self, *args: str, stdin: bytes = b"", check: bool = True) -> str:
        return self.engine.docker(*args, stdin=stdin, check=check, DOCKER_HOST=f"unix://{self.path}").out

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> int:
        """One request of our own; the answer is read for half a second when it has no end."""
        with contextlib.closing(_Unix(self.path)) as connection:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
            kind = {"Content-Type": "application/json"} if raw is not None else {}
            connection.request(method, f"/v1.51{path}", raw, {**kind, **headers})
            answer = connection.getresponse()
            with contextlib.suppress(TimeoutError):
                answer.read()
            return answer.status


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=patient(15))
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@pytest.fixture(scope="module")
def description():
    return load_description()


@pytest.fixture(scope="module")
def contract(description):
    return Contract(description, EXTRAS, HABITS)


@pytest.fixture
def tapped(engine, contract):
    """After the test everything that went through the tap is judged."""
    one = Tapped(engine)
    yield one
    engine.remove_all()
    one.tap.close()
    problems = [p for exchange in one.tap.exchanges() for p in contract.check(exchange)]
    assert not problems, "\n".join(dict.fromkeys(problems))


def test_command_line(tapped):
    """Lives of containers as a person types them."""
    docker = tapped.docker
    docker("network", "create", "--subnet", "10.61.0.0/24", "--label", "a=b", "back")
    docker("volume", "create", "--label", "a=b", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "full")
    docker(
        *shlex.split(
            "run -d --name one --network back --network-alias uno -p 127.0.0.1::80 -v full:/d -v /anonymous "
            "--tmpfs /t --mount type=bind,src=/tmp,dst=/host,readonly -m 64m --cpus 0.5 --pids-limit 50 "
            "--ulimit nofile=100 --init --dns 127.0.0.1 --add-host a:10.0.0.1 --label l=m -e A=B "
            "--restart on-failure:3 --device /dev/null:/dev/nil --sysctl net.ipv4.ip_forward=0 --shm-size 1m "
            "--cap-add SYS_ADMIN --security-opt no-new-privileges --health-cmd true --health-interval 1s "
            "--stop-timeout 1 --stop-signal KILL --expose 90/udp busybox sleep 1000"
        ),
    )
    docker("run", "-d", "--name", "two", "--link", "one", "--network", "back", "busybox", "sleep", "1000")
    docker("create", "--name", "three", "--rm", "-it", "--blkio-weight", "300", "busybox")
    docker(
        "run",
        "--name",
        "four",
        "--network",
        "none",
        "--read-only",
        "busybox",
        "sh",
        "-c",
        "echo x; exit 3",
        check=False,
    )
    docker("run", "--rm", "--network", "host", "--pid", "host", "busybox", "true")
    docker("pause", "two")
    for state in ("one", "two", "three", "four"):
        docker("inspect", "--size", state)
    docker("ps", "-as", "--no-trunc")
    docker("exec", "one", "true")
    docker("exec", "-d", "one", "sleep", "9")
    docker("top", "one")
    docker("stats", "--no-stream", "one")
    docker("port", "one")
    docker("update", "-m", "65m", "--memory-swap", "-1", "one")
    docker("rename", "one", "uno")
    docker("unpause", "two")
    docker("kill", "-s", "TERM", "two")
    docker("restart", "-t", "0", "uno")
    docker("logs", "four")
    docker("wait", "four")
    docker("stop", "uno")
    docker("network", "inspect", "back")
    docker("network", "ls")
    docker("volume", "ls")
    docker("volume", "inspect", "full")
    docker("images", "-a")
    docker("image", "inspect", "busybox")
    docker("history", "busybox")
    docker("tag", "busybox", "other:1")
    docker("rmi", "other:1")
    docker("info")
    docker("version")
    docker("system", "df", "-v")
    docker("events", "--since", "1h", "--until", "0s")
    docker("rm", "-fv", "uno", "two")
    docker("container", "prune", "-f")
    docker("network", "prune", "-f")
    docker("volume", "prune", "-f", "-a")
    docker("save", "busybox")
    for wrong in (
        "start none",
        "inspect none",
        "rm none",
        "network rm none",
        "volume rm none",
        "rmi none",
        "run none/x:1",
    ):
        docker(*wrong.split(), check=False)
    assert len(tapped.tap.exchanges()) > 80


def test_docker_py(tapped):
    with contextlib.closing(
        docker.DockerClient(base_url=f"unix://{tapped.path}", version="auto", timeout=patient(30))
    ) as client:
        client.api.import_image_from_data(busybox_tar(), repository="bare")
        network = client.networks.create("py", driver="bridge", labels={"a": "b"})
        container = client.containers.run("busybox", ["sleep", "1000"], detach=True, name="py", network="py")
        container.reload()
        container.stats(stream=False)
        container.exec_run(["sh", "-c", "echo a"], tty=True)
        client.networks.list(greedy=True)
        client.containers.list(all=True)
        client.images.list()
        bare = client.images.get("bare")
        assert bare.attrs["Config"]["Cmd"] is None
        client.volumes.list()
        client.df()
        client.info()
        container.remove(force=True)
        client.images.remove("bare")
        network.remove()


def test_compose(tapped, tmp_path):
    (tmp_path / "compose.yaml").write_text(COMPOSE, encoding="utf-8")
    for line in ("up -d --wait", "ps --format json", "top", "down -v -t 0"):
        command = ["compose", "-p", "kc", *line.split()]
        tapped.engine.docker(*command, cwd=tmp_path, timeout=50, DOCKER_HOST=f"unix://{tapped.path}")


PARTS = (
    "commit",
    "containers",
    "exec",
    "images",
    "networks",
    "volumes",
    "info",
    "version",
    "events",
    "system",
    "_ping",
)
# Endpoints whose drive would leave this machine.
OUTSIDE = {("GET", "/images/search"), ("POST", "/images/{name}/push")}
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


def test_every_endpoint(tapped, contract):
    """Each operation once at least, in versions that clients' commands may not use."""
    call = tapped.call
    config = {"Image": "busybox", "Cmd": ["sh", "-c", "echo out; sleep 1000"], "Tty": True, "OpenStdin": True}
    assert call("POST", "/containers/create?name=one", config) == 201
    assert call("POST", "/containers/create?name=gone", {"Image": "busybox", "Cmd": ["true"]}) == 201
    run = [
        ("POST", "start"),
        ("GET", "json?size=1"),
        ("GET", "top"),
        ("GET", "logs?stdout=1"),
        ("GET", "changes"),
        ("GET", "export"),
        ("GET", "stats?stream=0&one-shot=1"),
        ("POST", "resize?h=10&w=20"),
        ("POST", "pause"),
        ("POST", "unpause"),
        ("POST", "kill?signal=WINCH"),
        ("HEAD", "archive?path=/etc"),
        ("GET", "archive?path=/etc/passwd"),
        ("POST", "rename?name=uno"),
    ]
    for method, verb in run:
        status = call(method, f"/containers/one/{verb}")
        assert status < 300, (verb, status)
        if verb.startswith("rename"):
            assert call("POST", "/containers/uno/rename?name=one") == 204
    assert call("PUT", "/containers/one/archive?path=/tmp", busybox_tar()) == 200
    assert call("POST", "/containers/one/update", {"Memory": 64 << 20, "MemorySwap": -1}) == 200
    assert call("POST", "/containers/gone/start") == 204
    assert call("POST", "/containers/gone/wait") == 200
    assert call("POST", "/containers/gone/attach?logs=1&stdout=1", **UPGRADE) == 101
    call("GET", "/containers/one/attach/ws?logs=1")
    tapped.docker("exec", "one", "true")
    exec_id = _create_exec(tapped)
    assert call("GET", f"/exec/{exec_id}/json") == 200
    assert call("POST", f"/exec/{exec_id}/start", {"Detach": True}) == 200
    call("POST", f"/exec/{exec_id}/resize?h=10&w=20")
    assert call("POST", "/containers/one/restart?t=0") == 204
    assert call("POST", "/containers/one/stop?t=0") == 204
    assert call("POST", "/containers/one/stop?t=0") == 304
    assert call("POST", "/commit?container=one&repo=kept") == 201
    assert call("DELETE", "/images/kept") == 200
    _drive_others(tapped)
    assert call("DELETE", "/containers/one") == 204
    assert call("POST", "/containers/prune") == 200
    seen = {contract.operation_of(exchange) for exchange in tapped.tap.exchanges()}
    wanted = {key for key in contract.operations if key[1].split("/")[1] in PARTS} - OUTSIDE
    assert wanted - seen == set(), "never seen"


def _create_exec(tapped: Tapped) -> str:
    body = {"Cmd": ["sleep", "1000"], "Tty": True, "AttachStdin": True, "AttachStdout": True}
    assert tapped.call("POST", "/containers/one/exec", body) == 201
    made = [e for e in tapped.tap.exchanges() if e.target.endswith("/v1.51/containers/one/exec")]
    return made[-1].json["Id"]


def _drive_others(tapped: Tapped) -> None:
    """Images, networks, volumes, the system."""
    call = tapped.call
    for path in (
        "/containers/json?all=1&size=1",
        "/images/json",
        "/images/busybox/json",
        "/images/busybox/history",
        "/images/busybox/get",
        "/images/get?names=busybox",
        "/networks",
        "/networks/bridge",
        "/volumes",
        "/info",
        "/version",
        "/_ping",
        "/system/df",
        "/events?since=0&until=1",
    ):
        assert call("GET", path) == 200, path
    assert call("HEAD", "/_ping") == 200
    assert call("POST", "/images/busybox/tag?repo=mine&tag=2") == 201
    assert call("DELETE", "/images/mine:2") == 200
    assert call("POST", "/images/load", b"") in (200, 400)
    assert call("POST", "/images/create?fromSrc=-&repo=made", busybox_tar()) == 200
    assert call("DELETE", "/images/made") == 200
    assert call("POST", "/images/prune") == 200
    assert call("POST", "/networks/create", {"Name": "made"}) == 201
    assert call("POST", "/networks/made/connect", {"Container": "one"}) == 200
    assert call("POST", "/networks/made/disconnect", {"Container": "one"}) == 200
    assert call("GET", "/networks/made?verbose=1") == 200
    assert call("DELETE", "/networks/made") == 204
    assert call("POST", "/networks/prune") == 200
    assert call("POST", "/volumes/create", {"Name": "made"}) == 201
    assert call("GET", "/volumes/made") == 200
    call("PUT", "/volumes/made?version=1", {})
    assert call("DELETE", "/volumes/made") == 204
    assert call("POST", "/volumes/prune") == 200
