"""Image-layouts that a build leaves: as directories, with annotations of everything that can have some."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]

DOCKERFILE = b"FROM busybox\nRUN echo made > /made\n"


def read(place, digest):
    return json.loads((place / "blobs" / digest.replace(":", "/")).read_bytes())


def test_a_layout_as_a_directory(engine, tmp_path):
    """It is what an archive would have, and builds can begin with it."""
    place = tmp_path / "deep" / "layout"
    for kind in ("docker", "oci"):
        words = ["--provenance=false", "-t", "laid/out:1", "-o", f"type={kind},tar=false,dest={place}"]
        engine.ketch("build", *words, "-", stdin=DOCKERFILE)
        [found] = json.loads((place / "index.json").read_bytes())["manifests"]
        assert found["annotations"]["org.opencontainers.image.ref.name"] == "1"
        manifest = read(place, found["digest"])
        assert all((place / "blobs" / one["digest"].replace(":", "/")).is_file() for one in manifest["layers"])
    text = b"FROM given\nRUN cat /made\n"
    words = [f"--build-context=given=oci-layout://{place}@{found['digest']}", "--progress=plain"]
    assert " made\n" in engine.ketch("build", *words, "-o", "type=cacheonly", "-", stdin=text).err
    done = engine.ketch("build", "-o", "type=oci,tar=false", "-", stdin=DOCKERFILE, check=False)
    assert done.code != 0 and "dest is required for oci output" in done.err


def test_annotations(engine, tmp_path):
    """Of manifests, the index, and what describes them in the layout, for all platforms or one."""
    words = [
        *("--annotation=a=1", "--annotation=manifest-descriptor:b=2", "--annotation=index:c=3"),
        *("--annotation=index-descriptor:d=4", "--annotation=manifest[linux/arm64]:a=arm"),
        "--provenance=false",
    ]
    place = tmp_path / "two"
    text = b"FROM scratch\nCOPY Dockerfile /\n"
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_bytes(text)
    output = f"type=oci,tar=false,dest={place}"
    engine.ketch("build", "--platform=linux/amd64,linux/arm64", *words, "-o", output, str(tmp_path / "context"))
    [found] = json.loads((place / "index.json").read_bytes())["manifests"]
    assert found["annotations"]["d"] == "4"
    index = read(place, found["digest"])
    assert index["annotations"] == {"c": "3"}
    seen = {one["platform"]["architecture"]: (one["annotations"], one["digest"]) for one in index["manifests"]}
    assert [seen[name][0] for name in ("amd64", "arm64")] == [{"b": "2"}] * 2
    assert [read(place, seen[name][1])["annotations"] for name in ("amd64", "arm64")] == [{"a": "1"}, {"a": "arm"}]
    single = tmp_path / "one"
    output = f"type=oci,tar=false,dest={single}"
    engine.ketch("build", *words[:2], words[-1], "-o", output, str(tmp_path / "context"))
    [found] = json.loads((single / "index.json").read_bytes())["manifests"]
    assert found["annotations"] == {"b": "2"} and read(single, found["digest"])["annotations"] == {"a": "1"}
