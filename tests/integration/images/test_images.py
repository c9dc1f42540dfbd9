"""Images through both clients: import, load, save, list, inspect, history, tag, remove; archives of other tools."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shlex
import subprocess
import tarfile
from datetime import datetime

import pytest
import zstandard

from tests.support import peers
from tests.support.engines import busybox_tar
from tests.support.waiting import patient


@pytest.fixture
def tar_of_root() -> bytes:
    return busybox_tar()


@pytest.fixture(autouse=True)
def _only_busybox(client):
    """No test leaves an image to the next one."""
    yield
    client.engine.remove_all()
    for ref in client("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").out.splitlines():
        name, image = ref.split()
        if name != "busybox:latest":
            client("rmi", "-f", image if "<none>" in name else name, check=False)


def test_images(client):
    lines = client("images").out.splitlines()
    assert lines[0].split()[:3] == ["REPOSITORY", "TAG", "IMAGE"]
    assert any(re.match(r"busybox +latest +[0-9a-f]{12} .*MB$", line) for line in lines[1:])
    image = client("images", "-q", "--no-trunc", "busybox").out.strip()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image)
    assert client("images", "-q", "no-such").out == ""


def test_tag_and_rmi(client):
    image = client("images", "-q", "busybox").out.strip()
    client("tag", "busybox", "harbour.example/ship/box:v1")
    assert client("images", "-q", "harbour.example/ship/box").out.strip() == image
    result = client("rmi", image, check=False)
    assert result.code == 1
    assert "referenced in multiple repositories" in result.err
    assert client("rmi", "harbour.example/ship/box:v1").out == "Untagged: harbour.example/ship/box:v1\n"
    assert client("images", "-q", "busybox").out.strip() == image


def test_rmi_of_an_image_in_use(client, tar_of_root):
    image = client("import", "-", "used:1", stdin=tar_of_root).out.strip()
    client("create", "--name", "user", "used:1", "true")
    result = client("rmi", "used:1", check=False)
    assert result.code == 1
    assert "conflict" in result.err and "user" not in client("ps", "-q").out
    client("rm", "user")
    out = client("rmi", image[7:19]).out
    assert "Untagged: used:1" in out and f"Deleted: {image}" in out
    assert "No such image" in client("rmi", image, check=False).err


def test_import_with_changes(client, tar_of_root):
    client(
        *shlex.split("import -c 'CMD [\"echo\", \"hello\"]' -c 'ENV A=b' -c 'WORKDIR /etc' -m 'made by hand' - made:1"),
        stdin=tar_of_root,
    )
    assert client("run", "--rm", "made:1").out == "hello\n"
    assert client("run", "--rm", "made:1", "sh", "-c", "echo $A $(pwd)").out == "b /etc\n"
    assert "made by hand" in client("history", "made:1").out


def test_import_of_a_compressed_file(client, tar_of_root, tmp_path):
    path = tmp_path / "root.tar.gz"
    path.write_bytes(gzip.compress(tar_of_root, 1))
    client("import", str(path), "zipped")
    assert client("run", "--rm", "zipped", "echo", "runs").out == "runs\n"


@pytest.mark.parametrize("compress", [bytes, lambda b: gzip.compress(b, 1), zstandard.compress])
def test_save_and_load(client, tmp_path, compress):
    path = tmp_path / "image.tar"
    client("tag", "busybox", "copy:1")
    image = client("images", "-q", "--no-trunc", "copy").out
    client("save", "-o", str(path), "copy:1")
    client("rmi", "copy:1")
    assert client("load", stdin=compress(path.read_bytes())).out == "Loaded image: copy:1\n"
    assert client("images", "-q", "--no-trunc", "copy").out == image


def test_names_and_times_in_an_archive(client, tmp_path):
    """A repository without a tag is all of its tags; each is found by its tag alone, as skopeo does it."""
    path = tmp_path / "image.tar"
    for tag in ("copy:1", "copy:2"):
        client("tag", "busybox", tag)
    client("save", "-o", str(path), "copy")
    with tarfile.open(path) as archive:
        times = {round(m.mtime) for m in archive if m.isfile()}
        index, names, (entry,) = (
            json.load(archive.extractfile(name)) for name in ("index.json", "repositories", "manifest.json")
        )
    (seen,) = json.loads(client("image", "inspect", "copy:1").out)
    assert times == {0, int(datetime.fromisoformat(seen["Created"][:19] + "+00:00").timestamp())}
    found = [descriptor["annotations"] for descriptor in index["manifests"]]
    assert [a["org.opencontainers.image.ref.name"] for a in found] == ["1", "2"]
    assert [a["io.containerd.image.name"] for a in found] == ["docker.io/library/copy:1", "docker.io/library/copy:2"]
    assert list(names) == ["copy"] and sorted(names["copy"]) == ["1", "2"]
    assert entry["RepoTags"] == ["copy:1", "copy:2"] and list(entry["LayerSources"]) == seen["RootFS"]["Layers"]
    inspect = peers.command("skopeo", "inspect", "--config", f"oci-archive:{path}:2")
    done = subprocess.run(inspect, check=True, timeout=patient(30), capture_output=True)
    assert json.loads(done.stdout)["config"]["Cmd"] == ["sh"]
    client("rmi", "copy:1", "copy:2")


# dockerd reads the first only when it keeps images in containerd's store.
@pytest.mark.parametrize("kind", [pytest.param("oci-archive", marks=pytest.mark.ketch_only), "docker-archive"])
def test_load_of_what_skopeo_writes(client, tmp_path, kind):
    saved, other = tmp_path / "saved.tar", tmp_path / "other.tar"
    client.engine.docker("save", "-o", str(saved), "busybox")
    copy = ["copy", "-q", f"docker-archive:{saved}", f"{kind}:{other}:foreign:2"]
    subprocess.run(peers.command("skopeo", "--insecure-policy", *copy), check=True, timeout=patient(30))
    assert "foreign:2" in client("load", "-i", str(other)).out
    assert client("run", "--rm", "foreign:2", "echo", "runs").out == "runs\n"


def test_inspect_and_history(client):
    (seen,) = json.loads(client("image", "inspect", "busybox").out)
    assert seen["RepoTags"] == ["busybox:latest"]
    assert seen["Config"]["Cmd"] == ["sh"]
    assert seen["Os"] == "linux" and seen["Size"] > 500_000
    assert len(seen["RootFS"]["Layers"]) == 1
    assert client("history", "-q", "--no-trunc", "busybox").out.split()[0] == seen["Id"]


def tar_with(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    return info


EVIL = {
    "dotdot": tar_with((member("../../escaped"), b"x")),
    "symlink": tar_with((member("a", tarfile.SYMTYPE, "/tmp"), b""), (member("a/kt-escaped"), b"x")),
    "hard link": tar_with((member("p", tarfile.LNKTYPE, "../../../../../../../../etc/hostname"), b"")),
    "truncated": busybox_tar()[:300_000],
    "truncated gzip": gzip.compress(busybox_tar(), 1)[:100_000],
    "not a tar": b"this is no archive at all" * 100,
}


@pytest.mark.parametrize("name", EVIL)
def test_bad_archives_are_refused(client, name, tmp_path):
    def files() -> set[str]:
        found = {os.path.join(root, f) for root, _, fs in os.walk(client.engine.data_root) for f in fs}
        return {f for f in found if "ketch.db" not in f}

    before = files()
    result = client("import", "-", "evil:1", stdin=EVIL[name], check=False)
    if result.code == 0:  # a member may also be confined to the root, as a container would see it
        assert name == "symlink"
        assert client("run", "--rm", "evil:1", "x", check=False).code == 127
    else:
        assert client("images", "-q", "evil").out == ""
        assert files() <= before
    assert not os.path.exists("/tmp/kt-escaped") and not os.path.exists("/escaped")
    assert client("run", "--rm", "busybox", "true").code == 0


@pytest.mark.parametrize("data", [EVIL["not a tar"], tar_with((member("manifest.json"), b"[{"))])
def test_bad_load_is_refused(client, data):
    before = client("images", "-aq").out
    assert client("load", stdin=data, check=False).code == 1
    assert client("images", "-aq").out == before


def test_an_image_of_another_platform_is_not_removed(client):
    client("tag", "busybox", "other")
    refused = client("rmi", "--platform", "linux/s390x", "other", check=False)
    assert refused.code == 1
    assert "linux/s390x" in refused.err
    client(
        "rmi", "--platform", client("image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", "other").out.strip(), "other"
    )
    assert client("images", "-q", "other").out == ""
