"""Parts of the state removed under a living daemon: each command works or says what is missing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time

import pytest

from tests.support.rawapi import Api, connected
from tests.support.registries.registries import registry
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only


@pytest.fixture
def broken(own_engine):
    """An engine with a container that runs, one that does not, and a registry."""
    own_engine.start()
    own_engine.add_busybox()
    client = own_engine.client
    for name in "stopped", "running":
        client("create", "--name", name, "busybox", "sh", "-c", "echo hi; exec sleep 1000")
        client("start", name)
    client("stop", "-t", "0", "stopped")
    with registry() as one:
        client("tag", "busybox", f"{one.host}/box:1")
        yield own_engine, f"{one.host}/box:1"
    assert "Traceback" not in own_engine.log() and "internal error" not in own_engine.log()


def commands(root: str, ref: str) -> dict[str, tuple[str, ...]]:
    return {
        "create": ("create", "busybox", "true"),
        "run": ("run", "--rm", "busybox", "true"),
        "start": ("start", "stopped"),
        "inspect": ("inspect", "--size", "stopped"),
        "logs": ("logs", "stopped"),
        "image inspect": ("image", "inspect", "busybox"),
        "history": ("history", "busybox"),
        "images": ("images",),
        "ps": ("ps", "-as"),
        "save": ("save", "-o", f"{root}/saved", "busybox"),
        "push": ("push", ref),
        "export": ("export", "-o", f"{root}/exported", "stopped"),
        "export running": ("export", "-o", f"{root}/exported", "running"),
        "cp": ("cp", "stopped:/etc/passwd", f"{root}/passwd"),
        "cp in": ("cp", f"{root}/pid", "stopped:/tmp/"),
        "diff": ("diff", "stopped"),
        "diff running": ("diff", "running"),
        "commit": ("commit", "stopped"),
        "commit running": ("commit", "running"),
        "exec": ("exec", "running", "true"),
        "logs running": ("logs", "running"),
        "restart": ("restart", "-t", "0", "running"),
        "df": ("system", "df", "-v"),
    }


def check(engine, ref: str, refused: dict[str, str]) -> None:
    """The commands of ``refused`` say that; all others work.  What is broken can be removed in any case."""
    for name, command in commands(engine.root, ref).items():
        result = engine.client(*command, check=False, timeout=60)
        said = (result.err or result.out).strip()
        if name not in refused:
            assert result.code == 0, (name, said)
            continue
        assert result.code != 0, name
        assert refused[name] in said, (name, said)
        assert "unexpected EOF" not in said, (name, said)
        if name == "start":
            assert engine.client("inspect", "-f", "{{.State.Running}}", "stopped").out == "false\n"
        if name == "save":
            assert not os.path.exists(f"{engine.root}/saved")
    engine.client("stop", "-t", "0", "running", check=False)
    engine.client("rm", "-fv", *engine.client("ps", "-aq").out.split())
    for _ in range(3):  # an image stays while another is made of it
        engine.client("rmi", "-f", *set(engine.client("images", "-aq").out.split()), check=False)
    assert engine.client("images", "-aq").out == ""
    until(lambda: os.listdir(f"{engine.data_root}/containers") == [], "directories of containers are left")


def test_a_layer(broken):
    engine, ref = broken
    for name in os.listdir(f"{engine.data_root}/layers"):
        shutil.rmtree(f"{engine.data_root}/layers/{name}")
    said = "a layer of the image is missing"
    names = ("create", "run", "start", "export", "diff", "diff running", "commit", "commit running", "restart")
    check(engine, ref, {**dict.fromkeys((*names, "cp", "cp in"), said), "exec": "not found"})
    engine.add_busybox()  # what is brought again is whole
    assert engine.client("run", "--rm", "busybox", "echo", "hello").out == "hello\n"


def blobs(engine) -> dict[str, str]:
    """The paths of the blobs of ``busybox`` by kind."""
    folder = f"{engine.data_root}/content/blobs/sha256"
    image_id = json.loads(engine.client("image", "inspect", "busybox").out)[0]["Id"][7:]
    found = {"config": f"{folder}/{image_id}"}
    for name in os.listdir(folder):
        with open(f"{folder}/{name}", "rb") as f:
            begin = f.read(20)
        if name != image_id:
            found["manifest" if begin.startswith(b'{"schemaVersion"') else "layer"] = f"{folder}/{name}"
    return found


@pytest.mark.parametrize("kind", ["config", "manifest", "layer"])
def test_a_blob(broken, kind):
    engine, ref = broken
    path = blobs(engine)[kind]
    os.unlink(path)
    said = f"blob sha256:{os.path.basename(path)} is missing"
    names = {"config": ("save", "push"), "manifest": ("save", "push")}
    names["layer"] = ("save", "push", "commit", "commit running")
    check(engine, ref, dict.fromkeys(names[kind], said))


def test_a_blob_that_was_cut(broken):
    engine, ref = broken
    os.truncate(blobs(engine)["layer"], 5000)
    result = engine.client("save", "-o", f"{engine.root}/saved", "busybox", check=False)
    assert result.code == 1
    assert "its descriptor says" in result.err
    assert not os.path.exists(f"{engine.root}/saved")


def test_the_directory_of_containers(broken):
    engine, ref = broken
    for name in os.listdir(f"{engine.data_root}/containers"):
        shutil.rmtree(f"{engine.data_root}/containers/{name}")
    for name in "stopped", "running":  # the answer to its HEAD has no message
        said = engine.ketch("cp", "/etc/passwd", f"{name}:/tmp/", check=False).err
        assert f"container {name}: its files are missing in" in said
    names = (
        "start",
        "export",
        "export running",
        "cp",
        "diff",
        "diff running",
        "commit",
        "commit running",
        "logs",
        "logs running",
        "exec",
        "restart",
    )
    check(engine, ref, dict.fromkeys((*names, "cp in"), "its files are missing in"))


def test_networks_of_a_container_without_its_directory(broken):
    """What is made in the kernel is made; its names cannot be written down."""
    engine, _ = broken
    client = engine.client
    client("network", "create", "back")
    directory = f"{engine.data_root}/containers/" + client("inspect", "-f", "{{.Id}}", "running").out.strip()
    os.rename(directory, f"{engine.root}/gone")
    client("network", "connect", "back", "running")
    client("network", "disconnect", "bridge", "running")
    networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
    assert client("inspect", "-f", networks, "running").out.split() == ["back"]
    os.rename(f"{engine.root}/gone", directory)
    assert client("exec", "running", "ls", "/sys/class/net").out.split() == ["eth1", "lo"]
    client("network", "disconnect", "back", "running")
    client("network", "rm", "back")


def test_the_directory_of_a_volume(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    client = own_engine.client
    client("create", "--name", "user", "-v", "lost:/v", "busybox", "true")
    shutil.rmtree(f"{own_engine.data_root}/volumes/lost/_data")
    for command in ("start", "user"), ("cp", "user:/v", own_engine.root), ("run", "--rm", "-v", "lost:/v", "busybox"):
        result = client(*command, check=False)
        assert result.code != 0, command
        assert f"{own_engine.data_root}/volumes/lost/_data" in result.err, (command, result.err)
    client("rm", "user")
    client("volume", "rm", "lost")
    assert "Traceback" not in own_engine.log()


FOLDERS = ("content/ingest", "content/blobs", "content/leases", "content", "layers", "containers", "volumes")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("stopped", [False, True], ids=["living", "stopped"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_the_data_root(own_engine, folder, stopped):
    """It is made anew: what is brought from now on is whole.  Of a living daemon's content not all of it."""
    own_engine.start()
    own_engine.add_busybox()
    client, root = own_engine.client, own_engine.root
    client("save", "-o", f"{root}/box.tar", "busybox")
    client("create", "--name", "one", "-v", "other:/v", "busybox")
    client("export", "-o", f"{root}/root.tar", "one")
    with registry() as registry_:
        ref = f"{registry_.host}/box:1"
        client("tag", "busybox", ref)
        client("push", ref)
        client("rm", "one")
        client("volume", "rm", "other")
        client("rmi", "busybox", ref)
        until(lambda: os.listdir(f"{own_engine.data_root}/layers") == [], "files of a removed image are left")
        if stopped:
            own_engine.stop()
        shutil.rmtree(f"{own_engine.data_root}/{folder}")
        if stopped:
            own_engine.start()
        elif folder == "content":
            for command in ("load", "-i", f"{root}/box.tar"), ("pull", ref), ("import", f"{root}/root.tar"):
                result = client(*command, check=False)
                assert result.code == 1
                assert f"the content of images is missing: there is no `{own_engine.data_root}/content`" in result.err
            own_engine.stop()
            own_engine.start()
        client("system", "prune", "-af", "--volumes")
        client("pull", ref)
        client("rmi", ref)
        client("load", "-i", f"{root}/box.tar")
        client("import", f"{root}/root.tar", "imported")
        client("run", "--name", "one", "-v", "volume:/v", "imported", "touch", "/v/made", "/made")
        client("commit", "one", "committed")
        assert client("run", "--rm", "-v", "volume:/v", "committed", "ls", "/made", "/v").out == "/made\n\n/v:\nmade\n"
        client("system", "df", "-v")
    assert "Traceback" not in own_engine.log()


def test_an_archive_for_a_container_without_files(own_engine):
    """What is refused before its body is read leaves nobody waiting for that."""
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("create", "--name", "one", "busybox")
    for name in os.listdir(f"{own_engine.data_root}/containers"):
        shutil.rmtree(f"{own_engine.data_root}/containers/{name}")
    answers = Api(own_engine.socket)
    status, answer = answers("PUT", "/containers/one/archive?path=/", _tar(b"x" * (1 << 20)))
    assert status == 500
    assert "its files are missing in" in answer["message"]
    assert "Traceback" not in own_engine.log()


def test_a_stream_that_breaks_is_no_whole_one(own_engine):
    """A blob that goes while it is sent: the client must fail, and not take the part for the whole."""
    own_engine.start()
    own_engine.client("import", "-", "big", stdin=_tar(os.urandom(64 << 20)), timeout=60)
    layer = max(
        (
            os.path.join(f"{own_engine.data_root}/content/blobs/sha256", n)
            for n in os.listdir(f"{own_engine.data_root}/content/blobs/sha256")
        ),
        key=os.path.getsize,
    )
    size = os.path.getsize(layer)
    with connected(own_engine.socket) as sock:
        sock.settimeout(patient(20))
        sock.sendall(b"GET /images/big/get HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = sock.recv(1 << 16)
        assert data.startswith(b"HTTP/1.1 200")
        time.sleep(0.3)  # the pipe and the socket are full: the rest is not read yet
        os.truncate(layer, size // 2)
        end = b""
        with contextlib.suppress(ConnectionResetError):
            while more := sock.recv(1 << 20):
                end = (end + more)[-16:]
    assert not end.endswith(b"0\r\n\r\n")


def _tar(data: bytes) -> bytes:
    from tests.support.registries.made_images import tar

    return tar({"big": data})
