"""docker-compose 1.29, the one in Python that Debian 12 has: each test is a thing that its users do.

Most look at one project that is up; those that change something have a project of their own.
"""

from __future__ import annotations

import json
import subprocess
import urllib.request

import pytest

from tests.support.clients import places
from tests.support.clients.compose_one import Compose, Project
from tests.support.waiting import patient

pytestmark = pytest.mark.usefixtures("no_images_left")

FILE = """
version: "2.4"
services:
  web:
    image: busybox
    command: sh -c "mkdir -p /www && echo moored as $$ROLE > /www/index.html && echo serving && httpd -f -p 80 -h /www"
    init: true
    ports: ["127.0.0.1::80", "127.0.0.1::81/udp"]
    expose: ["8080"]
    environment: {ROLE: keeper, EMPTY: ""}
    env_file: web.env
    labels: {tier: front}
    networks:
      front: {aliases: [site]}
      back: {ipv4_address: 10.67.0.10}
    volumes: ["data:/data", "./:/project:ro"]
    healthcheck: {test: "wget -qO- http://127.0.0.1/", interval: 0.2s, timeout: 2s, retries: 50}
    stop_grace_period: 0s
  worker:
    image: busybox
    command: sh -c "echo out; echo err >&2; sleep 1000"
    depends_on: {web: {condition: service_healthy}}
    networks: [back]
    volumes_from: ["web:ro"]
    scale: 2
    tmpfs: /scratch
    mem_limit: 64m
    cap_drop: [NET_RAW]
    sysctls: {net.ipv4.ip_forward: "0"}
    ulimits: {nofile: {soft: 100, hard: 200}}
    extra_hosts: ["db.test:10.1.2.3"]
    hostname: laborer
    domainname: example.test
    user: "1:1"
    working_dir: /tmp
    logging: {driver: json-file, options: {max-size: 1m}}
    stop_signal: SIGKILL
networks:
  front: {}
  back:
    driver: bridge
    internal: true
    labels: {side: back}
    ipam: {config: [{subnet: 10.67.0.0/24, gateway: 10.67.0.1}]}
volumes:
  data: {labels: {kind: test}}
"""

SMALL = """
version: "3.8"
services:
  one: {image: busybox, command: sleep 1000, stop_grace_period: 0s}
  two: {image: busybox, command: sh -c "echo two; exit 3", restart: "no"}
"""


@pytest.fixture(scope="module")
def compose(world):
    """The client."""
    one = Compose(world, places.place("compose1"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def shop(compose, tmp_path_factory):
    """A project that is up, for tests that only look."""
    directory = tmp_path_factory.mktemp("shop", numbered=False)
    (directory / "web.env").write_text("FROM_FILE=yes\n", encoding="utf-8")
    one = Project(compose, directory, FILE)
    one("up", "-d")
    yield one
    one("down", "-v", "--remove-orphans", "-t", "0")


@pytest.fixture
def small(compose, tmp_path):
    """A project of one's own."""
    directory = tmp_path / "small"
    directory.mkdir()
    one = Project(compose, directory, SMALL)
    yield one
    one("down", "-v", "--remove-orphans", "-t", "0")


def test_ps(shop):
    rows = [row for row in shop("ps").splitlines()[2:] if not row.startswith(" ")]  # others are a long cell's rest
    assert sorted(row.split()[0] for row in rows) == ["shop_web_1", "shop_worker_1", "shop_worker_2"]
    assert [row for row in rows if "Up (healthy)" in row] == [row for row in rows if "web" in row]
    assert len(shop("ps", "-q", "worker").split()) == 2
    assert shop("ps", "--services").split() == ["web", "worker"]
    assert shop("ps", "--services", "--filter", "status=running").split() == ["web", "worker"]


def test_config_and_images(shop):
    assert shop("config", "--services").split() == ["web", "worker"]
    assert len(shop("config", "--hash", "web").split()[1]) == 64
    assert {row.split()[1] for row in shop("images").splitlines()[2:]} == {"busybox"}


def test_ports(shop):
    address = shop("port", "web", "80").strip()
    with urllib.request.urlopen(f"http://{address}/", timeout=patient(5)) as answer:
        assert answer.read() == b"moored as keeper\n"
    assert shop("port", "--protocol", "udp", "web", "81").startswith("127.0.0.1:")


def test_logs(shop):
    assert sorted(shop("logs", "--no-color", "worker").splitlines()[1:]) == [
        "worker_1  | err",
        "worker_1  | out",
        "worker_2  | err",
        "worker_2  | out",
    ]
    assert shop("logs", "--no-color", "--no-log-prefix", "--tail", "1", "web").splitlines()[1:] == ["serving"]
    assert "T" in shop("logs", "--no-color", "-t", "web").splitlines()[1].partition("| ")[2][:20]


def test_exec(shop):
    assert shop("exec", "-T", "web", "sh", "-c", "echo $ROLE [$EMPTY] $FROM_FILE") == "keeper [] yes\n"
    assert shop(
        "exec", "-T", "-e", "X=1", "-u", "nobody", "-w", "/etc", "web", "sh", "-c", "echo $X $(id -u) $PWD"
    ) == ("1 65534 /etc\n")
    shop("exec", "-T", "web", "sh", "-c", "exit 9", code=9)
    assert shop("exec", "-d", "web", "touch", "/tmp/made") == ""
    assert shop("exec", "-T", "--index=2", "worker", "hostname") == "laborer\n"


def test_names_between_services(shop):
    assert shop("exec", "-T", "worker", "wget", "-qO-", "http://web/") == "moored as keeper\n"
    assert shop("exec", "-T", "web", "wget", "-qO-", "http://site/") == "moored as keeper\n"
    assert "10.67.0.10" in shop("exec", "-T", "worker", "nslookup", "web")
    assert "10.1.2.3\tdb.test" in shop("exec", "-T", "worker", "cat", "/etc/hosts")


def test_what_a_service_was_given(shop):
    script = "pwd; id -u; ulimit -n; cat /proc/sys/net/ipv4/ip_forward; hostname; df /scratch | grep -c tmpfs"
    assert shop("exec", "-T", "worker", "sh", "-c", script).split() == ["/tmp", "1", "100", "0", "laborer", "1"]
    found = shop.inspect("worker_1")
    config, host = found["Config"], found["HostConfig"]
    assert (config["Hostname"], config["Domainname"]) == ("laborer", "example.test")
    assert (config["StopSignal"], config["User"]) == ("SIGKILL", "1:1")
    assert (host["Memory"], host["LogConfig"]["Config"]) == (64 << 20, {"max-size": "1m"})
    assert host["CapDrop"] in (["NET_RAW"], ["CAP_NET_RAW"])


def test_volumes(shop):
    shop("exec", "-T", "web", "sh", "-c", "echo kept > /data/x; test -f /project/web.env")
    assert shop("exec", "-T", "worker", "cat", "/data/x") == "kept\n"
    shop("exec", "-T", "worker", "touch", "/data/y", code=1)
    shop("exec", "-T", "web", "touch", "/project/y", code=1)


def test_labels(shop):
    labels = shop.inspect("web_1")["Config"]["Labels"]
    assert labels["tier"] == "front"
    assert labels["com.docker.compose.version"] == "1.29.2"
    assert labels["com.docker.compose.container-number"] == "1"
    assert labels["com.docker.compose.oneoff"] == "False"


def test_top_and_events(shop):
    assert shop("top", "worker").count("sleep 1000") == 2
    with subprocess.Popen(
        [shop.compose.program, "events", "--json"],
        cwd=shop.directory,
        env=shop.engine.environment(),
        stdout=subprocess.PIPE,
    ) as watcher:
        # It says nothing before the first event: kill the worker with a signal that does nothing until it is heard.
        for _ in range(50):
            shop.engine.client("kill", "-s", "WINCH", "shop_web_1")
            if json.loads(watcher.stdout.readline())["action"] == "kill":
                break
        watcher.terminate()


def test_run(shop):
    assert shop("run", "--rm", "--no-deps", "-T", "worker", "sh", "-c", "echo $((6*7))") == "42\n"
    shop("run", "--rm", "--no-deps", "-T", "worker", "sh", "-c", "exit 4", code=4)
    asked = ["--no-deps", "-T", "--rm", "-e", "ROLE=mate", "-u", "0", "-w", "/", "-v", f"{shop.directory}:/here:ro"]
    out = shop("run", *asked, "--entrypoint", "sh", "worker", "-c", "echo $ROLE $PWD; ls /here/web.env")
    assert out == "mate /\n/here/web.env\n"
    name = shop("run", "-d", "--no-deps", "--name", "oneoff", "worker", "sleep", "1000").strip()
    assert shop.engine.inspect(name)["Config"]["Labels"]["com.docker.compose.oneoff"] == "True"
    shop.engine.client("rm", "-f", "oneoff")


def test_run_with_input(shop):
    assert shop("run", "--rm", "--no-deps", "-T", "worker", "cat", stdin="typed\n") == "typed\n"


def test_up_again_changes_nothing(shop):
    before = shop("ps", "-q")
    shop("up", "-d")
    assert shop("ps", "-q") == before


def test_scale(small):
    small("up", "-d", "--scale", "one=3", "one")
    assert len(small("ps", "-q", "one").split()) == 3
    small("up", "-d", "--scale", "one=1", "one")
    (kept,) = small("ps", "-q", "one").split()
    small("up", "-d", "--no-recreate", "one")
    assert small("ps", "-q", "one").split() == [kept]


def test_a_changed_file(small):
    """It cannot recreate what an image as of today is made of: it wants ContainerConfig, which dockerd has dropped."""
    small("up", "-d", "one")
    small.write(SMALL.replace("sleep 1000,", "sleep 1001, environment: {A: b},"))
    assert "'ContainerConfig'" in small("up", "-d", "one", code=1)
    small("rm", "-fs")
    small("up", "-d", "one")
    assert small("exec", "-T", "one", "sh", "-c", "echo $A") == "b\n"


def test_stop_start_pause_kill_rm(small):
    def state() -> str:
        return small.inspect("one_1")["State"]["Status"]

    small("up", "-d", "one")
    small("pause")
    assert state() == "paused"
    small("unpause")
    small("stop")
    assert state() == "exited"
    small("start")
    small("restart", "-t", "0")
    assert state() == "running"
    small("kill", "-s", "SIGKILL")
    assert state() == "exited"
    small("rm", "-f")
    assert small("ps", "-q") == ""


def test_attached_up_follows_to_the_end(small):
    out = small("up", "--exit-code-from", "two", code=3)
    assert "two_1  | two" in out
    assert "small_two_1 exited with code 3" in out


def test_create_and_dependencies_that_fail(small):
    small("up", "--no-start")
    assert {small.inspect(f"{n}_1")["State"]["Status"] for n in ("one", "two")} == {"created"}
    small.write(
        'version: "2.4"\nservices:\n  sick: {image: busybox, command: sleep 1000, stop_grace_period: 0s,'
        " healthcheck: {test: 'false', interval: 0.1s, retries: 1}}\n"
        "  last: {image: busybox, command: 'true', depends_on: {sick: {condition: service_healthy}}}\n"
    )
    assert "is unhealthy" in small("up", "-d", "--remove-orphans", "last", code=1)


def test_external_things(small):
    client = small.engine.client
    client("network", "create", "outside")
    client("volume", "create", "kept")
    small.write(
        SMALL.replace("sleep 1000,", "sleep 1000, networks: [n], volumes: ['v:/v'],")
        + "networks: {n: {external: true, name: outside}}\nvolumes: {v: {external: {name: kept}}}\n"
    )
    small("up", "-d", "one")
    assert list(small.inspect("one_1")["NetworkSettings"]["Networks"]) == ["outside"]
    small("down", "-v", "-t", "0")
    client("network", "rm", "outside")
    client("volume", "rm", "kept")
    assert "declared as external, but could not be found" in small("up", "-d", "one", code=1)
    small.write(SMALL)


def test_what_does_not_start(small):
    small.write(SMALL.replace("sleep 1000", "no-such-program"))
    assert "no-such-program" in small("up", "-d", "one", code=1)
    small.write(SMALL.replace("image: busybox, command: sleep", "image: 'never.test/nothing:1', command: sleep"))
    small("up", "-d", "one", code=1)
    small.write(SMALL)


def test_networks_modes(small):
    small.write(
        'version: "2.4"\nservices:\n'
        "  one: {image: busybox, command: sleep 1000, network_mode: none, pid: host, ipc: shareable,"
        " stop_grace_period: 0s}\n"
        "  two: {image: busybox, command: sleep 1000, network_mode: 'service:one', ipc: 'service:one',"
        " stop_grace_period: 0s}\n"
    )
    small("up", "-d")
    target = small.inspect("one_1")["Id"]
    host = small.inspect("two_1")["HostConfig"]
    assert (host["NetworkMode"], host["IpcMode"]) == (f"container:{target}", f"container:{target}")


def test_version(small):
    assert "docker-compose version 1.29.2" in small("version")


def test_build(compose, tmp_path):
    """A service that is built, with arguments, a target, and a second time out of the cache."""
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS base\nARG WORD=none\nRUN echo $WORD > /word\nFROM base AS other\nRUN exit 1\n"
    )
    text = """
version: "2.4"
services:
  made:
    build: {context: ., target: base, args: {WORD: spoken}, labels: {a: b}}
    image: made:1
    command: cat /word
"""
    one = Project(compose, tmp_path, text)
    try:
        assert "Successfully tagged made:1" in one("build")
        assert "Using cache" in one("build")
        assert "spoken" in one("up")
        assert "Successfully built" in one("build", "--no-cache")
        one("build", "--build-arg", "WORD=changed")
        assert one("run", "--rm", "made").splitlines()[-1] == "changed"
    finally:
        one("down", "-v", "--rmi", "all", "-t", "0")
