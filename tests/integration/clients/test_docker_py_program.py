"""A program as people write them with the Docker SDK for Python: services, jobs, watchers, and what goes wrong."""

from __future__ import annotations

import contextlib
import socket
import threading

import docker.errors
import pytest
from docker.types import EndpointConfig, Healthcheck, LogConfig, Mount, Ulimit

from tests.support.engines import API
from tests.support.waiting import patient, until

SECOND = 1_000_000_000


@pytest.fixture
def world(private_engine):
    """The SDK's client for a daemon of our own."""
    with contextlib.closing(private_engine.py()) as client:
        yield client


class Watcher(threading.Thread):
    """Collects container events until it is closed."""

    def __init__(self, client, **filters: object) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[str, str]] = []
        self._changed = threading.Condition()
        self._events = client.events(decode=True, filters={"type": "container", **filters})
        self.start()

    def run(self) -> None:
        for event in self._events:
            with self._changed:
                self.seen.append((event["Actor"]["Attributes"]["name"], event["Action"].partition(":")[0]))
                self._changed.notify_all()

    def expect(self, *wanted: tuple[str, str]) -> None:
        """Until all of them were seen, in this order (others may stand between them)."""

        def there() -> bool:
            rest = iter(self.seen)
            return all(w in rest for w in wanted)

        with self._changed:
            assert self._changed.wait_for(there, patient(15)), self.seen

    def close(self) -> None:
        self._events.close()
        self.join(patient(10))
        assert not self.is_alive()


def test_a_service_and_its_job(world):
    network = world.networks.create("app", labels={"app": "demo"})
    volume = world.volumes.create("pages", labels={"app": "demo"})
    watcher = Watcher(world, label="app=demo")
    check = Healthcheck(test=["CMD", "test", "-e", "/www/index.html"], interval=SECOND // 5, timeout=SECOND, retries=9)
    service = world.containers.create(
        "busybox",
        ["httpd", "-f", "-p", "80", "-h", "/www"],
        name="service",
        network="app",
        labels={"app": "demo"},
        mounts=[Mount("/www", "pages")],
        healthcheck=check,
        ports={"80/tcp": ("127.0.0.1", None)},
        mem_limit="64m",
        networking_config={"app": EndpointConfig(API, aliases=["site"])},
        init=True,
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 3},
        log_config=LogConfig(type="json-file"),
        ulimits=[Ulimit(name="nofile", soft=256, hard=512)],
        tmpfs={"/scratch": "size=1m"},
        environment=["A=b"],
    )
    assert service.status == "created"
    service.start()
    job = world.containers.run(
        "busybox",
        ["sh", "-c", "echo moored > /www/index.html; echo written"],
        remove=True,
        volumes=["pages:/www"],
        labels={"app": "demo"},
        name="job",
    )
    assert job == b"written\n"
    until(lambda: world.containers.get("service").health == "healthy", "the page makes it healthy")
    out = world.containers.run("busybox", "wget -qO- http://site/", network="app", remove=True, labels={"app": "demo"})
    assert out == b"moored\n"
    assert service.exec_run("sh -c 'ulimit -n; echo $A'").output == b"256\nb\n"
    service.reload()
    assert service.attrs["NetworkSettings"]["Networks"]["app"]["Aliases"].count("site") == 1
    assert [c.name for c in network.containers] == [] and network.reload() is None
    assert [c.name for c in network.containers] == ["service"]
    watcher.expect(
        ("service", "create"),
        ("service", "start"),
        ("job", "create"),
        ("job", "start"),
        ("job", "die"),
        ("job", "destroy"),
    )
    watcher.expect(("service", "health_status"))
    service.remove(force=True)
    watcher.expect(("service", "kill"), ("service", "die"), ("service", "destroy"))
    watcher.close()
    network.remove()
    volume.remove()


@pytest.mark.ketch_only  # docker-py loses output that comes with the answer's head, as dockerd may send it
def test_streams(world):
    script = "while read line; do echo out $line; echo err $line >&2; done; echo bye"
    box = world.containers.run("busybox", ["sh", "-c", script], detach=True, stdin_open=True, name="talker")
    lines: list[bytes] = []
    follower = threading.Thread(target=lambda: lines.extend(box.logs(stream=True, follow=True, timestamps=True)))
    follower.start()
    with contextlib.closing(box.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})) as attached:
        attached._sock.sendall(b"one\ntwo\n")
        data = b""
        while data.count(b"out") < 2:
            data += attached._sock.recv(4096)
        assert b"err" not in data
    second = box.attach(stream=True, logs=True, demux=True)
    out = b""
    while b"out two" not in out:
        out += next(second)[0] or b""
    assert box.logs(stdout=False) == b"err one\nerr two\n"
    assert box.logs(tail=1, stderr=False) == b"out two\n"
    box.stop(timeout=0)
    follower.join(patient(10))
    assert not follower.is_alive()
    text = b"".join(lines)
    assert (text.count(b"Z out "), text.count(b"Z err "), text[:2]) == (2, 2, b"20")
    box.remove()


def test_execs(world):
    box = world.containers.run("busybox", ["sleep", "1000"], detach=True)
    code, chunks = box.exec_run(["sh", "-c", "for i in 1 2 3; do echo $i; done"], stream=True)
    assert (code, b"".join(chunks)) == (None, b"1\n2\n3\n")
    code, pair = box.exec_run(["sh", "-c", "echo o; echo e >&2; exit 2"], demux=True)
    assert (code, pair) == (2, (b"o\n", b"e\n"))
    streamed = list(box.exec_run(["sh", "-c", "echo o; sleep 0.1; echo e >&2"], stream=True, demux=True).output)
    assert [(o, e) for o, e in streamed] == [(b"o\n", None), (None, b"e\n")]
    stream = box.exec_run(["cat"], stdin=True, socket=True).output
    stream._sock.sendall(b"echoed")
    stream._sock.shutdown(socket.SHUT_WR)
    data = b""
    while chunk := stream._sock.recv(4096):
        data += chunk
    stream.close()
    assert data == b"\x01\0\0\0\0\0\0\x06echoed"
    assert box.exec_run(["sh", "-c", "pwd; id -u"], workdir="/tmp", user="65534").output == b"/tmp\n65534\n"
    assert not box.exec_run("sleep 0", detach=True).output
    missing = box.exec_run("no-such-program")
    assert missing.exit_code in (126, 127) and b"no-such-program" in missing.output
    box.remove(force=True)


def test_looking_and_changing(world):
    box = world.containers.run("busybox", ["sleep", "1000"], detach=True, mem_limit="64m", name="one")
    readings = world.api.stats(box.id, decode=True)
    first, second = next(readings), next(readings)
    readings.close()
    assert second["precpu_stats"]["cpu_usage"] == first["cpu_stats"]["cpu_usage"]
    assert second["memory_stats"]["limit"] == 64 << 20
    box.update(mem_limit="96m", memswap_limit="96m", cpu_shares=512)
    assert box.stats(stream=False)["memory_stats"]["limit"] == 96 << 20
    assert [p[-1] for p in box.top()["Processes"]] == ["sleep 1000"]
    assert box.top(ps_args="-o pid,comm")["Titles"] == ["PID", "COMMAND"]
    box.rename("two")
    assert world.containers.get("two").id == box.id
    box.pause()
    assert world.containers.list(filters={"status": "paused"}) == [box]
    with pytest.raises(docker.errors.APIError, match="paused"):
        box.exec_run("true")
    box.unpause()
    waited: list[int] = []
    waiter = threading.Thread(target=lambda: waited.append(world.api.wait(box.id)["StatusCode"]))
    waiter.start()
    box.kill("SIGTERM")  # PID 1 ignores it
    box.kill()
    waiter.join(patient(10))
    assert waited == [137]
    box.start()
    box.restart(timeout=0)
    box.reload()
    assert (box.status, box.attrs["State"]["ExitCode"]) == ("running", 0)
    box.remove(force=True)


def test_errors(world):
    with pytest.raises(docker.errors.ContainerError) as failed:
        world.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 5"], remove=True)
    assert (failed.value.exit_status, failed.value.stderr) == (5, b"why\n")
    with pytest.raises(docker.errors.ContainerError):
        world.containers.run("busybox", "false", remove=True, stderr=True)
    for call in (
        lambda: world.containers.get("never"),
        lambda: world.networks.get("never"),
        lambda: world.volumes.get("never"),
        lambda: world.images.get("never:1"),
        lambda: world.api.exec_inspect("f" * 64),
        lambda: world.api.logs("never"),
    ):
        with pytest.raises(docker.errors.NotFound):
            call()
    box = world.containers.create("busybox", "true", name="taken")
    with pytest.raises(docker.errors.APIError, match="already in use") as conflict:
        world.containers.create("busybox", "true", name="taken")
    assert conflict.value.status_code == 409
    for options in ({"mem_limit": "1k"}, {"network": "never"}, {"volumes": ["relative:rel"]}, {"cpuset_cpus": "4096"}):
        with pytest.raises(docker.errors.APIError):
            world.containers.run("busybox", "true", remove=True, **options)
    with pytest.raises(docker.errors.APIError, match="not running"):
        box.exec_run("true")
    with pytest.raises(docker.errors.APIError):
        box.kill()
    for left in world.containers.list(all=True):
        left.remove()
    assert box.id not in [c.id for c in world.containers.list(all=True)]


def test_prune(world):
    world.containers.run("busybox", "true", labels={"job": "1"})
    world.containers.run("busybox", "true", labels={"job": "2"})
    keeper = world.containers.run("busybox", ["sleep", "1000"], detach=True, volumes=["kept:/k"], network="bridge")
    world.volumes.create("kept2", labels={"a": "b"})
    world.api.create_volume()
    world.networks.create("idle")
    assert len(world.containers.prune(filters={"label": "job=1"})["ContainersDeleted"]) == 1
    assert len(world.containers.prune()["ContainersDeleted"]) == 1
    assert world.networks.prune()["NetworksDeleted"] == ["idle"]
    world.volumes.prune()
    assert "kept" in [v.name for v in world.volumes.list()]
    assert world.containers.prune()["ContainersDeleted"] is None
    keeper.remove(force=True)
    for volume in world.volumes.list():
        volume.remove()


def test_many_threads_share_a_client(world):
    """Each of these is a whole life; none may disturb another."""
    failures: list[object] = []

    def life(number: int) -> None:
        try:
            out = world.containers.run(
                "busybox", ["sh", "-c", f"echo {number}; exit 0"], remove=True, name=f"t{number}"
            )
            assert out == f"{number}\n".encode()
            box = world.containers.run("busybox", ["sleep", "1000"], detach=True, name=f"s{number}")
            assert box.exec_run(["echo", str(number)]).output == f"{number}\n".encode()
            box.stop(timeout=0)
            assert box.wait()["StatusCode"] == 137
            box.remove()
        except Exception as e:
            failures.append((number, e))

    threads = [threading.Thread(target=life, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patient(30))
    assert failures == []
    assert world.containers.list(all=True) == []
