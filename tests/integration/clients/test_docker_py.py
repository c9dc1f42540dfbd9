"""The Docker SDK for Python does what the command lines do."""

from __future__ import annotations

import socket
import time

import docker.errors
import pytest

from tests.support.engines import busybox_tar
from tests.support.waiting import patient


def test_run(docker_py):
    assert docker_py.containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"
    with pytest.raises(docker.errors.ContainerError) as raised:
        docker_py.containers.run("busybox", ["sh", "-c", "exit 3"], remove=True)
    assert raised.value.exit_status == 3
    with pytest.raises(docker.errors.APIError, match="not found"):
        docker_py.containers.run("busybox", ["no-such-program"], remove=True)
    assert [c.status for c in docker_py.containers.list(all=True)] == ["created"]  # the SDK leaves what did not start


def test_life(docker_py):
    container = docker_py.containers.run("busybox", ["sleep", "1000"], detach=True, name="one", labels={"a": "b"})
    assert [c.name for c in docker_py.containers.list()] == ["one"]
    assert docker_py.containers.list(filters={"label": "a=b"}) == [container]
    assert container.top()["Processes"][0][-1] == "sleep 1000"
    assert container.stats(stream=False)["pids_stats"]["current"] == 1
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.rename("two")
    container.restart(timeout=0)
    container.stop(timeout=0)
    assert container.wait()["StatusCode"] == 137
    container.start()
    container.kill("KILL")
    container.reload()
    assert (container.name, container.attrs["State"]["ExitCode"]) == ("two", 137)
    container.remove()
    with pytest.raises(docker.errors.NotFound):
        container.reload()


def test_logs_and_exec(docker_py):
    script = "echo out; echo err >&2; read x; echo $x; sleep 1000"
    container = docker_py.containers.run("busybox", ["sh", "-c", script], detach=True, stdin_open=True)
    stream = container.logs(stream=True, follow=True)
    seen = next(stream) + next(stream)
    assert sorted(seen.split()) == [b"err", b"out"]
    attached = container.attach_socket(params={"stdin": 1, "stream": 1})
    attached._sock.sendall(b"typed\n")
    assert next(stream) == b"typed\n"
    attached.close()
    assert container.logs(stderr=False) == b"out\ntyped\n"
    code, (out, err) = container.exec_run(["sh", "-c", "echo o; echo e >&2; exit 4"], demux=True)
    assert (code, out, err) == (4, b"o\n", b"e\n")
    assert (
        container.exec_run(["sh", "-c", "echo $A $(id -u)"], environment={"A": "b"}, user="nobody").output
        == b"b 65534\n"
    )
    assert container.exec_run("tty", tty=True).output.startswith(b"/dev/pts/")


def test_an_exec_that_has_ended_is_remembered_while_many_more_are_made(docker_py):
    docker_py.containers.run("busybox", ["sleep", "1000"], name="box", detach=True)
    api = docker_py.api
    ended = api.exec_create("box", ["sh", "-c", "exit 3"])["Id"]
    api.exec_start(ended)
    for _ in range(1002):
        api.exec_create("box", ["true"])
    found = api.exec_inspect(ended)
    assert (found["Running"], found["ExitCode"]) == (False, 3)


def test_exec_over_a_socket(docker_py):
    container = docker_py.containers.run("busybox", ["sleep", "1000"], detach=True)
    run = docker_py.api.exec_create(container.id, ["cat"], stdin=True, tty=False)
    stream = docker_py.api.exec_start(run["Id"], socket=True)
    stream._sock.sendall(b"there and back")
    stream._sock.shutdown(socket.SHUT_WR)
    data = b""
    while chunk := stream._sock.recv(4096):
        data += chunk
    stream.close()
    assert data[8:] == b"there and back"
    deadline = time.monotonic() + patient(10)
    while docker_py.api.exec_inspect(run["Id"])["Running"]:
        assert time.monotonic() < deadline
    assert docker_py.api.exec_inspect(run["Id"])["ExitCode"] == 0


def test_images(docker_py):
    image = docker_py.images.get("busybox")
    assert image.tag("copy", "1")
    assert "copy:1" in docker_py.images.get("copy:1").tags
    archive = b"".join(docker_py.images.get("copy:1").save(named="copy:1"))
    docker_py.images.remove("copy:1")
    (loaded,) = docker_py.images.load(archive)
    assert loaded.id == image.id
    assert "copy:1" in loaded.tags
    assert loaded.history()[0]["Id"] == image.id
    docker_py.images.remove("copy:1")
    docker_py.api.import_image_from_data(busybox_tar(), "made", "1", changes=["CMD echo made"])
    assert docker_py.containers.run("made:1", remove=True) == b"made\n"
    docker_py.images.remove("made:1")
    with pytest.raises(docker.errors.ImageNotFound):
        docker_py.images.get("made:1")


def test_system(docker_py):
    assert docker_py.ping()
    assert docker_py.version()["Os"] == "linux"
    assert docker_py.info()["NCPU"] > 0
    assert docker_py.df()["Images"]
    docker_py.containers.run("busybox", ["true"], name="herald", remove=True)
    past = docker_py.events(decode=True, since=int(time.time()) - 60, until=int(time.time()) + 1)
    assert any(e["Action"] == "die" and e["Actor"]["Attributes"]["name"] == "herald" for e in past)


def test_ports_and_mounts(docker_py, tmp_path):
    (tmp_path / "in").write_text("bound\n", encoding="utf-8")
    container = docker_py.containers.run(
        "busybox",
        ["nc", "-l", "-p", "80", "-e", "cat", "/m/in"],
        detach=True,
        ports={"80/tcp": ("127.0.0.1", None)},
        volumes={str(tmp_path): {"bind": "/m", "mode": "ro"}},
        mem_limit="32m",
        nano_cpus=500_000_000,
    )
    container.reload()
    port = int(container.ports["80/tcp"][0]["HostPort"])
    data = b""
    deadline = time.monotonic() + patient(10)
    while not data and time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), patient(2)) as s:
                data = s.recv(100)
        except OSError:
            time.sleep(0.02)
    assert data == b"bound\n"
