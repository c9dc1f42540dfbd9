"""python-on-whales: what the docker command prints as JSON, and a model made of it."""

import tempfile
from pathlib import Path

from python_on_whales import DockerException, docker
from python_on_whales.exceptions import NoSuchContainer, NoSuchImage, NoSuchVolume

DOCKERFILE = 'FROM busybox\nARG A\nRUN echo $A > /a\nCMD ["cat", "/a"]\n'


def refused(kind, call, *args):
    """Fail unless it raises just this error."""
    try:
        call(*args)
    except DockerException as e:
        assert type(e) is kind, e
        return e
    raise AssertionError("it was not refused")


def life(directory):
    """A container with all that is shown of it, its execs, files, end."""
    box = docker.run(
        "busybox",
        ["sh", "-c", "echo said; exec sleep 1000"],
        detach=True,
        name="box",
        labels={"a": "b"},
        envs={"X": "y"},
        publish=[("127.0.0.1:18481", 80)],
        volumes=[("vol", "/v")],
        stop_signal="SIGKILL",
    )
    assert (box.name, box.state.status, box.config.labels, box.restart_count) == ("box", "running", {"a": "b"}, 0)
    assert (box.path, box.args[0], box.created.tzname()) == ("sh", "-c", "UTC")
    assert box.host_config.port_bindings["80/tcp"][0].host_port == "18481"
    assert [(m.type, m.name, m.destination, m.rw) for m in box.mounts] == [("volume", "vol", "/v", True)]
    assert docker.execute(box, ["sh", "-c", "echo $X; id -u"], user="nobody") == "y\n65534"
    assert refused(DockerException, docker.execute, box, ["sh", "-c", "exit 3"]).return_code == 3
    said = docker.execute(box, ["sh", "-c", "echo o; sleep 0.1; echo e >&2"], stream=True)
    assert list(said) == [("stdout", b"o\n"), ("stderr", b"e\n")]
    assert docker.ps(filters={"label": "a=b"}) == [box]
    (directory / "in").write_text("data", encoding="utf-8")
    docker.copy(directory / "in", (box, "/tmp/in"))
    docker.copy((box, "/tmp/in"), directory / "out")
    assert (directory / "out").read_text(encoding="utf-8") == "data"
    assert docker.diff(box) == {"/tmp": "C", "/tmp/in": "A", "/v": "A"}
    box.rename("crate")
    box.restart(time=0)
    box.kill()
    assert docker.wait(box) == 137 and docker.logs(box) == "said\nsaid\n"
    box.remove(volumes=True)
    docker.volume.remove("vol")


def images(directory):
    """Built, run, missed."""
    (directory / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")
    image = docker.build(directory, tags=["built:1"], build_args={"A": "buildx"}, progress=False)
    assert image.config.cmd == ["cat", "/a"] and len(image.root_fs.layers) == 2
    assert docker.run("built:1", remove=True) == "buildx"
    docker.image.remove("built:1")
    refused(NoSuchImage, docker.image.inspect, "nope")
    refused(NoSuchContainer, docker.container.inspect, "nope")
    refused(NoSuchVolume, docker.volume.inspect, "nope")


with tempfile.TemporaryDirectory() as place:
    life(Path(place))
    images(Path(place))
assert docker.system.info().server_version == docker.version().server.version
