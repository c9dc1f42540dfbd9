"""Images with as many layers as there can be, through the whole engine."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from ketch.oci import digest
from ketch.storage.snapshots.overlay import MAX_DEPTH
from tests.support.engines import busybox_tar

pytestmark = pytest.mark.ketch_only  # dockerd's limit is 125


def tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def deep(client):
    """Loads an image of so many layers under a name; it goes at the end."""

    def load(count: int, check: bool = True) -> str:
        blobs = [busybox_tar(), *(tar({f"f{n}": b"x", "last": str(n).encode()}) for n in range(2, count + 1))]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest.of(blob) for blob in blobs]},
        }
        names = [f"{n}.tar" for n in range(count)]
        manifest = [{"Config": "config.json", "Layers": names, "RepoTags": ["deep:1"]}]
        files = dict(zip(names, blobs, strict=True))
        files |= {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
        return client("load", stdin=tar(files), check=check).err or "deep:1"

    yield load
    client.engine.remove_all()
    client("rmi", "-f", "deep:1", "deeper:1", check=False)


def test_all_that_one_does_with_a_container(client, deep, tmp_path):
    image = deep(MAX_DEPTH - 1)
    name = client("run", "-d", image, "sleep", "1000").out.strip()
    assert client("exec", name, "cat", "/last").out == str(MAX_DEPTH - 1)
    client("exec", name, "sh", "-c", "echo new >/new; rm /f2")
    assert sorted(client("diff", name).out.split("\n")) == ["", "A /new", "D /f2"]
    client("cp", f"{name}:/f{MAX_DEPTH - 1}", str(tmp_path / "f"))
    assert (tmp_path / "f").read_text() == "x"
    client("export", "-o", str(tmp_path / "e.tar"), name)
    with tarfile.open(tmp_path / "e.tar") as archive:
        assert {"new", f"f{MAX_DEPTH - 1}"} <= set(archive.getnames())
    client("commit", name, "deeper:1")
    assert client("run", "--rm", "deeper:1", "cat", "/new").out == "new\n"
    second = client("create", "deeper:1").out.strip()
    client("cp", str(tmp_path / "f"), f"{second}:/another")  # without a change there would be no layer
    refused = client("commit", second, check=False)
    assert "max depth exceeded" in refused.err


def test_an_image_of_too_many(client, deep):
    assert "max depth exceeded" in deep(MAX_DEPTH + 1, check=False)
    assert "deep" not in client("images").out
