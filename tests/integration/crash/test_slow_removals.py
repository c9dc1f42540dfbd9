"""Slow deletions and copies: nothing waits for them, neither the daemon's end nor its next start."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import Any

import pytest

from tests.support.boxes import loop_disk
from tests.support.programs import need
from tests.support.rawapi import Api
from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only
FILES = 20_000  # on a directory that is brought to the disk with each of its changes
MAKE = f"mkdir /slow; i=0; while [ $i -lt {FILES} ]; do : >/slow/$i; i=$((i+1)); done"


@pytest.fixture
def slow(own_engine, tmp_path):
    """An engine whose data root is an ext4 of its own."""
    with loop_disk.ext4(str(tmp_path / "disk"), own_engine.data_root, 256 << 20):
        try:
            own_engine.start()
            own_engine.add_busybox()
            yield own_engine
        finally:
            own_engine.remove_all()
            own_engine.stop()
    own_engine.data_root += "2"  # what the fixture ends with works without it


def slowed(root: str) -> str:
    """Have the directory ``slow`` below ``root`` written through to the disk; its path."""
    found = [os.path.join(path, "slow") for path, names, _ in os.walk(root) if "slow" in names]
    assert len(found) == 1
    subprocess.run([need("chattr"), "+D", found[0]], check=True)
    return found[0]


def left(engine) -> int:
    """How many of the files are there, wherever."""
    return sum(len(files) for path, _, files in os.walk(engine.data_root) if os.path.basename(path) == "slow")


def container(engine) -> list[str]:
    engine.client("run", "--name", "one", "busybox", "sh", "-c", MAKE)
    slowed(f"{engine.data_root}/containers")
    return ["containers", "one"]


def volume(engine) -> list[str]:
    engine.client("run", "--rm", "-v", "one:/v", "busybox", "sh", "-c", MAKE.replace("/slow", "/v/slow"))
    slowed(f"{engine.data_root}/volumes")
    return ["volumes", "one"]


def image(engine) -> list[str]:
    engine.client("run", "--name", "one", "busybox", "sh", "-c", MAKE)
    engine.client("commit", "one", "one")
    engine.client("rm", "one")
    until(lambda: left(engine) == FILES, "the container's copy is not removed")
    slowed(f"{engine.data_root}/layers")
    return ["images", "one"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
@pytest.mark.parametrize("make", [container, volume, image])
def test_removal(slow, make, number):
    """What the end of the daemon breaks off goes on after the next start, while requests are answered."""
    api = Api(slow.socket)
    kind, name = make(slow)
    assert left(slow) == FILES

    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(api("DELETE", f"/{kind}/{name}")))
    asking.start()
    until(lambda: left(slow) < FILES, "it is not removed")
    slow.stop(number)
    asking.join()
    if kind == "volumes" and number == signal.SIGTERM:  # else it was answered before, or never
        assert (answers[0][0], "the daemon is stopping" in answers[0][1]["message"]) == (503, True)
    assert left(slow) > 0, "the end has waited for it"
    slow.start()
    assert api("GET", f"/{kind}/{name}" + ("/json" if kind != "volumes" else ""))[0] == 404
    assert left(slow) > 0, "the start has waited for it"
    if kind == "volumes":  # the name is free
        assert api("POST", "/volumes/create", {"Name": name})[0] == 201
        api.must("DELETE", "/volumes/one")
    subprocess.run(["chattr", "-R", "-D", slow.data_root], check=False, stderr=subprocess.DEVNULL)
    until(lambda: left(slow) == 0, "it is not removed after the start")


def image_with_many_files(engine) -> None:
    engine.client("run", "--name", "one", "busybox", "sh", "-c", MAKE)
    engine.client("commit", "one", "one")
    engine.client("rm", "one")


def copied(engine, room: str) -> int:
    """How many of the files have been copied from the image's layer to this room of the data root."""
    found = os.walk(f"{engine.data_root}/{room}")
    return sum(1 for path, _, files in found if "/diff/" not in path for name in files if name.isdigit())


def slow_down(engine, room: str) -> None:
    """Have all changes of directories below written through to the disk, also of those yet to be made."""
    command = [need("chattr"), "-R", "+D", f"{engine.data_root}/{room}"]
    subprocess.run(command, check=False, stderr=subprocess.DEVNULL)  # there are links, which have no such thing


def create(engine, number: int, room: str, *options: str) -> None:
    """Begin to make a container, and end the daemon when the copy has begun."""
    slow_down(engine, room)
    command = [*engine.client.program.split(), "create", *options, "--name", "two", "one"]
    with subprocess.Popen(command, env=engine.environment(), stderr=subprocess.PIPE, text=True) as asking:
        until(lambda: copied(engine, room), "it is not copied")
        assert engine.stop(number) == (0 if number == signal.SIGTERM else -number)
        said = asking.communicate()[1]
    assert asking.returncode
    assert copied(engine, room) < FILES, "the end has waited for it"
    if number == signal.SIGTERM and room != "containers":  # there the answer waits for files to be deleted
        assert "the daemon is stopping" in said
    subprocess.run(["chattr", "-R", "-D", f"{engine.data_root}/{room}"], check=False, stderr=subprocess.DEVNULL)
    engine.start()
    assert engine.client("volume", "ls", "-q").out + engine.client("ps", "-aq").out == ""
    until(lambda: copied(engine, room) == 0, "it is not removed after the start")
    engine.client("create", *options, "--name", "two", "one")
    assert copied(engine, room) == FILES
    assert "Traceback" not in engine.log()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
@pytest.mark.parametrize("bind", ["one:/slow", "/slow"], ids=["named", "anonymous"])
def test_copy_into_a_volume(slow, bind, number):
    """The daemon's end breaks it off, and nothing of the container and of its volumes is left."""
    image_with_many_files(slow)
    slow.client("volume", "rm", slow.client("volume", "create").out.strip())  # their directory is there now
    create(slow, number, "volumes", "-v", bind)


def with_vfs(engine) -> None:
    engine.stop()
    engine.extra += ["--storage-driver", "vfs"]
    engine.start()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
@pytest.mark.parametrize("room", ["layers", "containers"])
def test_copy_of_an_image(slow, room, number):
    """The driver vfs copies the layers into one tree, and that for each container."""
    with_vfs(slow)
    image_with_many_files(slow)
    until(lambda: copied(slow, "containers") == 0, "the first container's copy is not removed")
    if room == "containers":
        slow.client("rm", slow.client("create", "one").out.strip())
        until(lambda: copied(slow, "containers") == 0, "the second container's copy is not removed")
    create(slow, number, room)


@pytest.mark.timeout(120)
def test_copy_of_an_image_to_be_mounted(slow):
    """The driver vfs makes its tree, too, while others are served."""
    with_vfs(slow)
    image_with_many_files(slow)
    slow_down(slow, "layers")
    mount = "type=image,source=one,target=/one"
    command = [*slow.client.program.split(), "create", "--mount", mount, "--name", "two", "busybox"]
    with subprocess.Popen(command, env=slow.environment(), stdout=subprocess.DEVNULL) as asking:
        until(lambda: copied(slow, "layers"), "it is not copied")
        assert Api(slow.socket)("GET", "/_ping")[0] == 200
        assert copied(slow, "layers") < FILES, "the answer has waited for it"
        subprocess.run(["chattr", "-R", "-D", f"{slow.data_root}/layers"], check=False, stderr=subprocess.DEVNULL)
    assert asking.returncode == 0
    assert copied(slow, "layers") == FILES


def test_a_copy_that_fails(own_engine):
    """A volume made for a container whose creation fails is not left with a part of what belongs there."""
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("volume", "create", "older")
    own_engine.stop()
    own_engine.settings = {"KETCH_FAULT": "create.volume-copied=enospc"}
    own_engine.start()
    for binds in (["-v", "named:/etc"], ["-v", "/etc"], ["-v", "older:/etc"]):
        done = own_engine.client("create", *binds, "busybox", check=False)
        assert done.code == 1
        assert "no space left" in done.err
    assert own_engine.client("volume", "ls", "-q").out == "older\n"
