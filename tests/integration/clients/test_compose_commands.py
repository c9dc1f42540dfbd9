"""Compose v2, command by command: each test is a thing that its users do.

Most look at one project that is up; those that change something have a project of their own.
"""

from __future__ import annotations

import json

import pytest

from tests.support.waiting import until

FILE = """
name: lab
x-common: &common {image: busybox, pull_policy: never, stop_grace_period: 0s}
services:
  web:
    <<: *common
    command: [sh, -c, "mkdir -p /www && echo moored > /www/index.html && echo serving && exec httpd -f -p 80 -h /www"]
    ports: ["127.0.0.1::80", {target: 81, published: "18481-18483", protocol: udp, host_ip: 127.0.0.1}]
    environment: {ROLE: keeper, EMPTY: "", PASSED: }
    labels: {tier: front}
    annotations: {note: kept}
    networks:
      front: {aliases: [site], priority: 10}
      back: {ipv4_address: 10.71.0.10, mac_address: "02:42:0a:47:00:0a"}
    volumes:
      - data:/data
      - {type: bind, source: ., target: /project, read_only: true}
    configs: [{source: inline, target: /etc/inline.ini, mode: 0440}, from_env]
    secrets: [token, {source: file, target: /run/file, mode: 0400}]
    healthcheck: {test: [CMD, wget, -qO-, "http://127.0.0.1/"], interval: 0.2s, timeout: 2s, retries: 50}
    tmpfs: ["/scratch:size=1m,mode=700"]
    init: true
    dns: [127.0.0.1]
    extra_hosts: ["db.test=10.1.2.3", "me.test:host-gateway"]
    post_start: [{command: [sh, -c, "echo started > /tmp/hook"]}]
  worker:
    <<: *common
    command: [sh, -c, "echo out; echo err >&2; exec sleep 1000"]
    depends_on: {web: {condition: service_healthy}}
    networks: [back]
    links: ["web:linked"]
    volumes_from: ["web:ro"]
    hostname: laborer
    user: "1:1"
    working_dir: /tmp
    read_only: true
    tmpfs: [/tmp]
    cap_add: [NET_ADMIN]
    cap_drop: [ALL]
    sysctls: {net.ipv4.ip_forward: 0}
    ulimits: {nofile: {soft: 100, hard: 200}, nproc: 500}
    shm_size: 8m
    pids_limit: 100
    group_add: ["10"]
    security_opt: ["no-new-privileges:true"]
    logging: {driver: json-file, options: {max-size: 1m, max-file: "2"}}
    deploy: {replicas: 2, resources: {limits: {memory: 64m, cpus: "0.5", pids: 100}, reservations: {memory: 16m}}}
  inner:
    <<: *common
    command: [sleep, "1000"]
    network_mode: "service:web"
    pid: "service:web"
    ipc: shareable
  tool:
    <<: *common
    command: [sleep, "1000"]
    profiles: [tools]
networks:
  front: {labels: {side: front}, driver_opts: {com.docker.network.bridge.enable_icc: "true"}}
  back:
    internal: true
    ipam: {config: [{subnet: 10.71.0.0/24, gateway: 10.71.0.1, ip_range: 10.71.0.0/25, aux_addresses: {x: 10.71.0.9}}]}
volumes:
  data: {labels: {kind: test}}
configs:
  inline: {content: "[lab]\\nopen=yes\\n"}
  from_env: {environment: GIVEN}
secrets:
  token: {environment: GIVEN}
  file: {file: ./token.txt}
"""

SMALL = """
name: small
services:
  one: {image: busybox, pull_policy: never, command: [sleep, "1000"], stop_grace_period: 0s}
  two: {image: busybox, pull_policy: never, command: [sh, -c, "echo two; exit 3"]}
"""


class Project:
    """A directory with a file, and ``docker compose`` there."""

    def __init__(self, engine, directory, text: str) -> None:
        self.engine = engine
        self.directory = directory
        (directory / "token.txt").write_text("hush", encoding="utf-8")
        self.write(text)

    def write(self, text: str) -> None:
        """Have another file."""
        (self.directory / "compose.yaml").write_text(text, encoding="utf-8")

    def __call__(self, *args: str, code: int = 0, stdin: bytes = b"", **environment: str) -> str:
        """What a command printed; of one that fails also its errors."""
        done = self.engine.docker(
            "compose",
            *args,
            check=False,
            stdin=stdin,
            timeout=60,
            cwd=self.directory,
            **{"GIVEN": "given", "PASSED": "through", **environment},
        )
        assert done.code == code, done.out + done.err
        return done.out + (done.err if code else "")

    def rows(self, *args: str) -> list[dict]:
        """What a command printed as lines of JSON."""
        return [json.loads(line) for line in self(*args, "--format", "json").splitlines()]

    def inspect(self, name: str) -> dict:
        """A container of it."""
        return self.engine.inspect(name)


@pytest.fixture(scope="module")
def lab(world, tmp_path_factory):
    """A project that is up, for tests that only look."""
    one = Project(world, tmp_path_factory.mktemp("lab"), FILE)
    one("up", "-d", "--wait")
    yield one
    one("down", "-v", "--remove-orphans", "-t", "0")


@pytest.fixture
def small(world, tmp_path):
    """A project of one's own."""
    one = Project(world, tmp_path, SMALL)
    yield one
    one("down", "-v", "--remove-orphans", "-t", "0")


def test_ps(lab):
    found = {row["Name"]: (row["State"], row["Health"]) for row in lab.rows("ps")}
    assert found == {
        "lab-web-1": ("running", "healthy"),
        "lab-worker-1": ("running", ""),
        "lab-worker-2": ("running", ""),
        "lab-inner-1": ("running", ""),
    }
    assert sorted(lab("ps", "--services").split()) == ["inner", "web", "worker"]
    assert len(lab("ps", "-q", "worker").split()) == 2
    assert lab("ps", "--status", "exited", "-q") == ""
    assert len(lab("ps", "--filter", "status=running", "-q").split()) == 4
    (web,) = [row for row in lab.rows("ps") if row["Service"] == "web"]
    assert {p["TargetPort"]: p["Protocol"] for p in web["Publishers"]} == {80: "tcp", 81: "udp"}


def test_ls_config_images_volumes(lab):
    assert json.loads(lab("ls", "--format", "json"))[0]["Status"] == "running(4)"
    assert sorted(lab("config", "--services").split()) == ["inner", "web", "worker"]
    assert lab("config", "--volumes") == "data\n"
    assert {one["Repository"] for one in json.loads(lab("images", "--format", "json"))} == {"busybox"}
    assert lab("volumes", "-q") == "lab_data\n"
    assert {row["Name"] for row in lab.rows("stats", "--no-stream")} >= {"lab-web-1", "lab-inner-1"}


def test_logs(lab):
    lines = sorted(lab("logs", "--no-color", "worker").replace(" ", "").splitlines())
    assert lines == ["worker-1|err", "worker-1|out", "worker-2|err", "worker-2|out"]
    assert lab("logs", "--no-log-prefix", "--tail", "1", "web") == "serving\n"
    assert lab("logs", "--no-log-prefix", "-t", "web").split()[0].endswith("Z")
    assert lab("logs", "--no-log-prefix", "--since", "1h", "--index", "2", "worker").split() in (
        ["out", "err"],
        ["err", "out"],
    )
    assert lab("logs", "--no-log-prefix", "--until", "1h", "web") == ""


def test_exec(lab):
    assert lab("exec", "-T", "web", "sh", "-c", "echo $ROLE [$EMPTY] $PASSED") == "keeper [] through\n"
    asked = ["-T", "-e", "X=1", "-u", "nobody", "-w", "/etc"]
    assert lab("exec", *asked, "web", "sh", "-c", "echo $X $(id -u) $PWD") == "1 65534 /etc\n"
    lab("exec", "-T", "web", "sh", "-c", "exit 9", code=9)
    assert "no-such" in lab("exec", "-T", "web", "no-such", code=127)
    assert lab("exec", "-T", "--index", "2", "worker", "hostname") == "laborer\n"
    assert lab("exec", "-T", "web", "cat", stdin=b"typed\n") == "typed\n"
    assert lab("exec", "-T", "--privileged", "web", "id", "-u") == "0\n"
    lab("exec", "-d", "web", "touch", "/tmp/made")
    assert "is not running" in lab("exec", "-T", "tool", "true", code=1)


def test_names(lab):
    for name in ("web", "linked", "lab-web-1", "10.71.0.10"):
        assert lab("exec", "-T", "worker", "wget", "-qO-", f"http://{name}/") == "moored\n", name
    assert lab("exec", "-T", "web", "wget", "-qO-", "http://site/") == "moored\n"
    hosts = lab("exec", "-T", "web", "cat", "/etc/hosts")
    assert "10.1.2.3\tdb.test" in hosts and "me.test" in hosts
    assert "02:42:0a:47:00:0a" in lab("exec", "-T", "web", "ip", "link")
    assert lab("exec", "-T", "inner", "wget", "-qO-", "http://127.0.0.1/") == "moored\n"
    assert "httpd" in lab("exec", "-T", "inner", "ps")


def test_configs_and_secrets(lab):
    inside = ["exec", "-T", "web"]
    assert lab(*inside, "cat", "/etc/inline.ini") == "[lab]\nopen=yes\n"
    assert lab(*inside, "cat", "/from_env") == "given"
    assert lab(*inside, "cat", "/run/secrets/token") == "given"
    assert lab(*inside, "cat", "/run/file") == "hush"
    assert lab(*inside, "stat", "-c", "%a", "/etc/inline.ini") == "440\n"


def test_what_a_service_was_given(lab):
    script = "pwd; id -u; ulimit -n; cat /proc/sys/net/ipv4/ip_forward; touch /x 2>/dev/null || echo read-only"
    assert lab("exec", "-T", "worker", "sh", "-c", script).split() == ["/tmp", "1", "100", "0", "read-only"]
    found = lab.inspect("lab-worker-1")["HostConfig"]
    assert (found["Memory"], found["NanoCpus"], found["PidsLimit"]) == (64 << 20, 500_000_000, 100)
    assert (found["ShmSize"], found["GroupAdd"], found["MemoryReservation"]) == (8 << 20, ["10"], 16 << 20)
    assert (found["SecurityOpt"], found["CapDrop"]) == (["no-new-privileges:true"], ["ALL"])
    assert lab.inspect("lab-web-1")["HostConfig"]["Annotations"] == {"note": "kept"}
    assert lab("exec", "-T", "web", "sh", "-c", "df /scratch | tail -1; cat /tmp/hook").split()[-1] == "started"
    lab("exec", "-T", "web", "touch", "/project/x", code=1)


def test_volumes(lab):
    lab("exec", "-T", "web", "sh", "-c", "echo kept > /data/x")
    assert lab("exec", "-T", "worker", "cat", "/data/x") == "kept\n"
    lab("exec", "-T", "worker", "touch", "/data/y", code=1)


def test_cp(lab, tmp_path):
    (tmp_path / "given").write_text("of the host\n", encoding="utf-8")
    lab("cp", str(tmp_path / "given"), "web:/tmp/given")
    assert lab("exec", "-T", "web", "cat", "/tmp/given") == "of the host\n"
    lab("cp", "--all", str(tmp_path / "given"), "inner:/tmp/")
    lab("cp", "web:/www", str(tmp_path))
    assert (tmp_path / "www/index.html").read_text(encoding="utf-8") == "moored\n"
    lab("cp", "web:/never", str(tmp_path), code=1)


def test_port_and_top(lab):
    assert lab("port", "web", "80").startswith("127.0.0.1:")
    assert lab("port", "--protocol", "udp", "web", "81") in [f"127.0.0.1:{p}\n" for p in (18481, 18482, 18483)]
    lab("port", "web", "99", code=1)
    assert lab("top", "worker").count("sleep 1000") == 2


def test_events(lab):
    lab.engine.client("kill", "-s", "WINCH", "lab-web-1")
    out = lab("events", "--json", "--since", "10m", "--until", "0s", "web", code=1)  # it finds the end unexpected
    seen = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert {one["service"] for one in seen} == {"web"}


def test_run(lab):
    plain = ["run", "--rm", "--no-deps", "-T"]
    assert lab(*plain, "worker", "sh", "-c", "echo $((6*7))") == "42\n"
    lab(*plain, "worker", "sh", "-c", "exit 4", code=4)
    assert lab(*plain, "worker", "cat", stdin=b"typed\n") == "typed\n"
    asked = ["-e", "ROLE=mate", "-u", "0", "-w", "/", "-v", f"{lab.directory}:/here:ro", "-l", "a=b"]
    out = lab(*plain, *asked, "--entrypoint", "sh", "tool", "-c", "echo $ROLE $PWD; ls /here/token.txt")
    assert out == "mate /\n/here/token.txt\n"
    lab("run", "-d", "--no-deps", "--name", "oneoff", "-p", "127.0.0.1:18490:80", "tool", "sleep", "1000")
    found = lab.inspect("oneoff")
    assert found["Config"]["Labels"]["com.docker.compose.oneoff"] == "True"
    assert found["NetworkSettings"]["Ports"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "18490"}]
    lab.engine.client("rm", "-f", "oneoff")


def test_up_again_changes_nothing(lab):
    before = sorted(lab("ps", "-q").split())
    lab("up", "-d")
    assert sorted(lab("ps", "-q").split()) == before


def test_dry_run(small):
    small("--dry-run", "up", "-d")
    assert small("ps", "-aq") == ""
    small("up", "-d", "one")
    small("--dry-run", "down")
    assert len(small("ps", "-q").split()) == 1


def test_scale_and_recreate(small):
    small("up", "-d", "--scale", "one=3", "one")
    assert len(small("ps", "-q", "one").split()) == 3
    small("scale", "one=1")
    (kept,) = small("ps", "-q", "one").split()
    small("up", "-d", "--no-recreate", "one")
    assert small("ps", "-q", "one").split() == [kept]
    small("up", "-d", "--force-recreate", "-t", "0", "one")
    assert small("ps", "-q", "one").split() != [kept]


def test_a_changed_file_recreates(small):
    changed = SMALL.replace('command: [sleep, "1000"],', 'command: [sleep, "1000"], volumes: [/anonymous],')
    small.write(changed)
    small("up", "-d", "one")
    small("exec", "-T", "one", "touch", "/anonymous/x")
    small.write(changed.replace('"1000"', '"1001"'))
    small("up", "-d", "one")
    assert small("exec", "-T", "one", "ls", "/anonymous") == "x\n"
    small("up", "-d", "-V", "one")
    small("up", "-d", "-V", "--force-recreate", "one")
    assert small("exec", "-T", "one", "ls", "/anonymous") == ""


def test_stop_start_pause_kill_rm(small):
    def state() -> str:
        return small.inspect("small-one-1")["State"]["Status"]

    small("create", "one")
    assert state() == "created"
    small("start", "one")
    small("pause", "one")
    assert state() == "paused"
    small("unpause", "one")
    small("stop", "one")
    assert state() == "exited"
    small("restart", "one")
    assert state() == "running"
    small("kill", "-s", "SIGKILL", "one")
    assert small.inspect("small-one-1")["State"]["ExitCode"] == 137
    small("rm", "-f", "one")
    assert small("ps", "-aq", "one") == ""


def test_attached_up(small):
    # Compose asks for events beside its starts: the end of a service that ends at once can come before.  One that waits
    # for another's health is started later.
    healthy = 'stop_grace_period: 0s, healthcheck: {test: [CMD, "true"], interval: 1s}}'
    text = SMALL.replace("stop_grace_period: 0s}", healthy).replace(
        '"echo two; exit 3"]', '"echo two; exit 3"], depends_on: {one: {condition: service_healthy}}'
    )
    small.write(text)
    out = small("up", "--exit-code-from", "two", code=3)
    assert "two-1  | two" in out
    small("up", "--abort-on-container-failure", "two", code=3)
    small("up", "-d", "--wait", "one")
    small("up", "-d", "--wait", "--wait-timeout", "5", code=1)


def test_export_and_commit(small, tmp_path):
    small("up", "-d", "one")
    small("export", "-o", str(tmp_path / "one.tar"), "one")
    assert (tmp_path / "one.tar").stat().st_size > 100_000
    small("commit", "-m", "why", "-c", "ENV A=b", "one", "committed:1")
    assert small.engine.client("run", "--rm", "committed:1", "sh", "-c", "echo $A").out == "b\n"
    small.engine.client("rmi", "committed:1")


def test_external_things(small):
    text = SMALL.replace('"1000"],', '"1000"], networks: [n], volumes: ["vol:/v"],')
    small.write(text + "networks: {n: {external: true, name: outside}}\nvolumes: {vol: {external: true, name: kept}}\n")
    assert "declared as external, but could not be found" in small("up", "-d", "one", code=1)
    small.engine.client("network", "create", "outside")
    small.engine.client("volume", "create", "kept")
    small("up", "-d", "one")
    assert list(small.inspect("small-one-1")["NetworkSettings"]["Networks"]) == ["outside"]
    small("down", "-v", "-t", "0")
    small.engine.client("network", "rm", "outside")
    small.engine.client("volume", "rm", "kept")
    small.write(SMALL)


def test_changed_networks_and_volumes(small):
    one = SMALL.replace('"1000"],', '"1000"], networks: [n],')
    small.write(one + "networks: {n: {labels: {a: b}}}\n")
    small("up", "-d", "one")
    small.write(one + "networks: {n: {labels: {a: c}}}\n")
    small("up", "-d", "one")
    found = small.engine.docker("network", "inspect", "-f", "{{.Labels.a}}", "small_n").out
    assert found == "c\n"


def test_orphans(small):
    small("up", "-d", "one")
    small.write(SMALL.replace("  one:", "  other:"))
    small("up", "-d", "other")
    assert len(small.engine.client("ps", "-q", "--filter", "label=com.docker.compose.project=small").out.split()) == 2
    small("up", "-d", "--remove-orphans", "other")
    assert small("ps", "--services").split() == ["other"]


def test_what_does_not_start(small):
    small.write(SMALL.replace('[sleep, "1000"]', "[no-such-program]"))
    assert "no-such-program" in small("up", "-d", "one", code=1)
    small.write(SMALL.replace("image: busybox, pull_policy: never", "image: '127.0.0.1:1/nothing:1'"))
    assert "connection refused" in small("up", "-d", "one", code=1)
    small("pull", "--ignore-pull-failures", "one")
    small("pull", "one", code=1)
    small.write(SMALL.replace("image: busybox", "image: 'never:1'"))
    assert "never" in small("up", "-d", "one", code=1)
    small.write(SMALL)


def test_taken_ports_and_addresses(small):
    small.write(SMALL.replace('"1000"],', '"1000"], ports: ["127.0.0.1:18495:80"],'))
    small("up", "-d", "one")
    small("up", "-d", "--scale", "one=2", "one", code=1)
    small.write(
        SMALL.replace('"1000"],', '"1000"], networks: {n: {ipv4_address: 10.72.0.5}},')
        + "networks: {n: {ipam: {config: [{subnet: 10.72.0.0/24}]}}}\n"
    )
    assert "Address already in use" in small("up", "-d", "--scale", "one=2", "one", code=1)


def test_ipv6(small):
    small.write(
        SMALL.replace('"1000"],', '"1000"], networks: {n: {ipv6_address: "fd72::5"}},')
        + "networks: {n: {enable_ipv6: true, ipam: {config: [{subnet: 'fd72::/64'}]}}}\n"
    )
    small("up", "-d", "one")
    assert "fd72::5/64" in small("exec", "-T", "one", "ip", "-6", "addr")


def test_oneshots_and_restarts(small):
    small.write(
        "name: small\nservices:\n"
        "  first: {image: busybox, command: [sh, -c, 'echo 1 > /d/x'], volumes: ['dd:/d']}\n"
        "  last: {image: busybox, command: [cat, /d/x], volumes: ['dd:/d'],"
        " depends_on: {first: {condition: service_completed_successfully}}}\n"
        "volumes: {dd: {}}\n"
    )
    assert "| 1\n" in small("up")
    small.write(
        "name: small\nservices:\n  flaky: {image: busybox, command: [sh, -c, 'exit 3'], restart: 'on-failure:1'}\n"
    )
    small("up", "-d", "--remove-orphans")

    def ended() -> bool:
        found = small.inspect("small-flaky-1")
        return (found["State"]["Status"], found["RestartCount"]) == ("exited", 1)

    until(ended, "the last end of the service")
    assert small.inspect("small-flaky-1")["State"]["ExitCode"] == 3


def test_extends_include_and_overrides(small):
    (small.directory / "base.yaml").write_text(
        "services:\n  base: {image: busybox, command: [sleep, '1000'], environment: {A: base},"
        " stop_grace_period: 0s}\n",
        encoding="utf-8",
    )
    (small.directory / "compose.override.yaml").write_text(
        "services:\n  one: {environment: {B: override}}\n", encoding="utf-8"
    )
    small.write("name: small\nservices:\n  one: {extends: {file: base.yaml, service: base}}\n")
    small("up", "-d", "one")
    assert small("exec", "-T", "one", "sh", "-c", "echo $A $B") == "base override\n"
