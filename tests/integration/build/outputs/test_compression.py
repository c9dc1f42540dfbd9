"""Compressions of layers that a build's outputs ask for: archives, pushes, what others make of them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest

from ketch.oci import manifest as oci
from ketch.storage.archive import compression
from tests.support.registries.registries import ours

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]

DOCKERFILE = b"FROM busybox\nRUN echo made > /made\nRUN echo again > /again\n"


def blobs(path):
    """The layers of the first manifest in an archive: media types and bytes; each descriptor is right."""
    with tarfile.open(path) as tar:

        def read(digest):
            data = tar.extractfile("blobs/" + digest.replace(":", "/")).read()
            assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
            return data

        index = json.load(tar.extractfile("index.json"))
        manifest = json.loads(read(index["manifests"][0]["digest"]))
        config = json.loads(read(manifest["config"]["digest"]))
        found = [(one["mediaType"], read(one["digest"])) for one in manifest["layers"]]
    for (_, data), diff_id in zip(found, config["rootfs"]["diff_ids"], strict=True):
        if compression.kind(data[:6]) != "none":
            with compression.reader(io.BytesIO(data), "layer") as plain:
                data = plain.read()
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == diff_id
    return found


@pytest.mark.parametrize(
    ("asked", "made", "first"),
    [
        ("compression=zstd", oci.LAYER_ZSTD, None),
        ("compression=zstd,compression-level=19,force-compression=true", oci.LAYER_ZSTD, oci.LAYER_ZSTD),
        ("compression=gzip,compression-level=9", oci.LAYER_GZIP, None),
        ("compression=uncompressed,force-compression=true", oci.LAYER, oci.LAYER),
    ],
)
def test_archives(engine, dockerd, tmp_path, asked, made, first):
    """What is made here has the compression, with `force` the base's layers, too; dockerd runs what is loaded."""
    for kind in ("oci", "docker"):
        path = tmp_path / f"{kind}.tar"
        engine.ketch("build", "-t", "packed:1", "-o", f"type={kind},dest={path},{asked}", "-", stdin=DOCKERFILE)
        base, *layers = blobs(path)
        assert {media_type for media_type, _ in layers} == {made}
        assert first is None or base[0] == first
    dockerd.docker("load", "-i", str(path))
    try:
        assert dockerd.docker("run", "--rm", "packed:1", "cat", "/made", "/again").out == "made\nagain\n"
    finally:
        dockerd.docker("rmi", "packed:1")


@pytest.mark.parametrize("provenance", ["false", "mode=min"])
def test_pushes(engine, provenance):
    """The image is kept, and pushed, with the layers as they were asked for; so is what another push sends."""
    with ours() as one:
        for tag, asked, wanted in (
            ("zstd", "compression=zstd", oci.LAYER_ZSTD),
            ("plain", "compression=uncompressed", oci.LAYER),
            ("usual", "oci-mediatypes=true", oci.LAYER_GZIP),
        ):
            name = f"{one.host}/packed:{tag}"
            text = DOCKERFILE + f"LABEL a={tag}\n".encode()
            words = [f"--provenance={provenance}", "-t", name, "-o", f"type=image,push=true,{asked}"]
            engine.ketch("build", *words, "-", stdin=text)
            shown = json.loads(engine.ketch("manifest", "inspect", name).out)
            assert ("manifests" in shown) == (provenance != "false")
            if "manifests" in shown:
                [found] = [one["digest"] for one in shown["manifests"] if one["platform"]["os"] == "linux"]
                shown = json.loads(engine.ketch("manifest", "inspect", f"{one.host}/packed@{found}").out)
            assert {layer["mediaType"] for layer in shown["layers"][-2:]} == {wanted}, tag
            engine.ketch("rmi", "-f", name)
            engine.ketch("pull", "-q", name)
            assert engine.ketch("run", "--rm", name, "cat", "/made").out == "made\n"
            engine.ketch("rmi", "-f", name)


def test_what_is_refused(engine):
    for asked, message in (
        ("compression=estargz", "estargz"),
        ("compression=lz4", "unsupported compression type lz4"),
        ("compression-level=11", "at most 9"),
        ("force-compression=perhaps", "force-compression=perhaps"),
    ):
        done = engine.ketch("build", "-o", f"type=image,{asked}", "-", stdin=DOCKERFILE, check=False)
        assert done.code == 1 and message in done.err
