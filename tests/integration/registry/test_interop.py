"""Every client against every server: what one pushes another pulls, bit for bit; the matrix is printed at the end."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support import peers
from tests.support.engines import Engine
from tests.support.registries import made_images as made
from tests.support.registries.registries import bucket, ours, registry
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENTS = ("ketch", "dockerd", "skopeo", "podman", "oras")
SERVERS = ("ketch", "ketch-s3", "docker-registry")


class Foreign(Protocol):
    """What a client has to be able to do with an image, which the test puts into or fetches from a registry."""

    def pull(self, ref: str) -> str:
        """Pull; returns the image's id (the digest of its configuration)."""

    def push(self, ref: str, to: str) -> None:
        """Push what was pulled from ``ref`` under another name."""


class ByDocker:
    """An engine with Docker's API, through the docker client."""

    def __init__(self, engine: Engine) -> None:
        self.docker = engine.docker

    def pull(self, ref: str) -> str:
        self.docker("pull", "-q", ref)
        return json.loads(self.docker("image", "inspect", ref).out)[0]["Id"]

    def push(self, ref: str, to: str) -> None:
        self.docker("tag", ref, to)
        self.docker("push", "-q", to)
        self.docker("rmi", to, ref)


class ByCommand:
    """skopeo or podman, with a store of its own."""

    def __init__(self, root: str) -> None:
        self._root = root

    def run(self, *command: str) -> str:
        done = subprocess.run(peers.command(*command), capture_output=True, text=True, check=False, timeout=patient(60))
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()


class Skopeo(ByCommand):
    def pull(self, ref: str) -> str:
        shutil.rmtree(f"{self._root}/skopeo", ignore_errors=True)
        self.run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{ref}", f"dir:{self._root}/skopeo")
        with open(f"{self._root}/skopeo/manifest.json", encoding="utf-8") as f:
            return json.load(f)["config"]["digest"]

    def push(self, ref: str, to: str) -> None:
        self.run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"dir:{self._root}/skopeo", f"docker://{to}")


class Podman(ByCommand):
    def _podman(self, *words: str) -> str:
        store = ("--root", f"{self._root}/podman", "--runroot", f"{self._root}/podman-run", "--storage-driver", "vfs")
        return self.run("podman", *store, *words)

    def pull(self, ref: str) -> str:
        return "sha256:" + self._podman("pull", "-q", "--tls-verify=false", ref).splitlines()[-1]

    def push(self, ref: str, to: str) -> None:
        self._podman("push", "-q", "--tls-verify=false", ref, to)
        self._podman("rmi", "-f", ref)


class Oras(ByCommand):
    """The Python client: it knows manifests and blobs, and nothing of images."""

    def pull(self, ref: str) -> str:
        return str(self._client(ref).get_manifest(ref)["config"]["digest"])

    def push(self, ref: str, to: str) -> None:
        client = self._client(ref)
        with open(f"{self._root}/artifact.txt", "w", encoding="ascii") as f:
            f.write("an artifact\n")
        client.push(target=to, files=[f"{self._root}/artifact.txt"], disable_path_validation=True)
        found = client.pull(target=to, outdir=f"{self._root}/back")
        with open(found[0], encoding="ascii") as f:
            assert f.read() == "an artifact\n"

    @staticmethod
    def _client(ref: str):
        import oras.client

        return oras.client.OrasClient(hostname=ref.partition("/")[0], insecure=True)


@pytest.fixture(scope="module", params=SERVERS)
def server(request) -> Iterator[tuple[str, str]]:
    """(name, host) of each make."""
    with contextlib.ExitStack() as undo:
        if request.param == "docker-registry":
            one = undo.enter_context(registry())
        else:
            flags = undo.enter_context(bucket()) if request.param == "ketch-s3" else []
            one = undo.enter_context(ours(*flags))
        yield request.param, one.host


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, Foreign]]:
    """All of them, made when they are needed."""
    with contextlib.ExitStack() as undo:
        root = tempfile.mkdtemp(prefix="kt-interop-", dir="/tmp")
        undo.callback(shutil.rmtree, root)
        engines = [Engine("ketch", suffix="i"), Engine("dockerd", suffix="j")]
        # It runs no containers here: so it may stay in this network, where the registries are, and leave it alone.
        engines[1].extra = ["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
        for one in engines:
            undo.callback(one.delete)
            one.start()
        yield {
            "ketch": ByDocker(engines[0]),
            "dockerd": ByDocker(engines[1]),
            "skopeo": Skopeo(root),
            "podman": Podman(root),
            "oras": Oras(root),
        }


@pytest.mark.ketch_only
@pytest.mark.parametrize("client", CLIENTS)
def test_interop(server, clients, client):
    name, host = server
    one = clients[client]
    image = made.busybox({"data": client.encode()}, docker=True)
    ref, to = f"{host}/in/{client}:1", f"{host}/out/{client}:1"
    made.put(host, f"in/{client}", image, "1")
    assert one.pull(ref) == image.image_id
    one.push(ref, to)
    pushed = made.got(host, f"out/{client}", "1")
    if client == "oras":
        return
    assert json.loads(pushed)["config"]["digest"] == image.image_id
    if client != "podman":  # it compresses anew
        assert json.loads(pushed)["layers"] == json.loads(image.data)["layers"]
    if client in ("ketch", "skopeo"):
        assert pushed == image.data
    # What it has pushed, we pull and push on: the same bytes.
    ketch = clients["ketch"]
    assert ketch.pull(to) == image.image_id
    ketch.push(to, f"{host}/on/{client}:1")
    assert made.got(host, f"on/{client}", "1") == pushed


@pytest.mark.ketch_only
def test_what_is_committed_is_loaded_by_others(clients, tmp_path):
    """Its layer has no blob; the archive has one, and dockerd finds the same layers in it."""
    ours_, theirs = clients["ketch"].docker, clients["dockerd"].docker
    (tmp_path / "base.tar").write_bytes(made.tar({"etc/passwd": b"root:x:0:0::/:/bin/sh\n", "gone": b"x"}))
    (tmp_path / ("long" * 30)).write_bytes(b"x" * 100_000)
    ours_("import", str(tmp_path / "base.tar"), "base:1")
    made_of = ours_("create", "base:1", "none").out.strip()
    ours_("cp", str(tmp_path / ("long" * 30)), f"{made_of}:/etc/")
    ours_("commit", made_of, "committed:1")
    ours_("save", "-o", str(tmp_path / "saved.tar"), "committed:1")
    theirs("load", "-i", str(tmp_path / "saved.tar"))
    facts = [json.loads(docker("image", "inspect", "committed:1").out)[0] for docker in (ours_, theirs)]
    assert facts[0]["Id"] == facts[1]["Id"]
    assert facts[0]["RootFS"] == facts[1]["RootFS"]
    ours_("rm", made_of)
    for docker in (ours_, theirs):
        docker("rmi", "committed:1")
