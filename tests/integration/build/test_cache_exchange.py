"""Caches of builds: written by BuildKit and read here, and the other way round; in directories, registries, images."""

from __future__ import annotations

import json
import os
import tarfile

import pytest

from tests.support.engines import Engine, busybox_tar
from tests.support.registries.registries import ours

pytestmark = pytest.mark.usefixtures("no_images_left")

DOCKERFILE = """\
FROM exchanged AS one
RUN echo one > /one
COPY --chown=1:2 --chmod=640 . /all
COPY --exclude=*.txt d* /some/
RUN --mount=target=/m,source=d cat /one /m/a > /sum
FROM exchanged AS two
WORKDIR /w
RUN echo two > two
FROM scratch
COPY --from=one /sum /some /
COPY --from=two /w/t* /two/
COPY --link f l /linked/
"""
ZSTD = "zstd", ",mode=max,compression=zstd,compression-level=5,force-compression=true"
STEPS = ("RUN", "COPY", "WORKDIR", "LINK")
FILES = {"a": "aa", "b.txt": "b", "f": "f", "l": "aa", "sum": "one\naa", "two": "two\n"}
"""The regular files of the result by their base names; ``l`` is a link in the context."""


@pytest.fixture(scope="module")
def base():
    """One image for all."""
    return busybox_tar()


@pytest.fixture(scope="module")
def buildkit(base):
    """A dockerd whose builder can export caches."""
    one = Engine("dockerd", suffix="x")
    one.own_network = True
    one.extra += ["--feature", "containerd-snapshotter=true"]
    with one.running():
        one.docker("import", "-", "exchanged", stdin=base)
        yield one


@pytest.fixture
def ketch(engine, base):
    """The shared engine with the image, and no cache before or afterwards."""
    engine.docker("import", "-", "exchanged", stdin=base)
    engine.ketch("builder", "prune", "-af")
    yield engine.ketch
    engine.ketch("builder", "prune", "-af")
    engine.docker("rmi", "-f", "exchanged")


@pytest.fixture
def context(tmp_path):
    place = tmp_path / "context"
    (place / "d").mkdir(parents=True)
    (place / "d" / "a").write_text("aa")
    (place / "d" / "b.txt").write_text("b")
    (place / "f").write_text("f")
    (place / "l").symlink_to("d/a")
    (place / "Dockerfile").write_text(DOCKERFILE)
    return place


def steps(log):
    """The steps of a build that were cached, and the others, by their names."""
    cached, others = set(), set()
    for line in log.splitlines():
        for one in json.loads(line).get("vertexes", []) if line.startswith("{") else ():
            if one.get("completed") and any(f"] {word} " in one["name"] for word in STEPS):
                (cached if one.get("cached") else others).add(one["name"])
    return cached, others - cached


def files_in(archive):
    with tarfile.open(archive) as tar:
        members = [one for one in tar if one.isfile()]
        return {one.name.rpartition("/")[2]: tar.extractfile(one).read().decode() for one in members}


def built(ketch, context, *words):
    """A build with Ketch: what was cached, and what was not; its files are right."""
    archive = context.parent / "out.tar"
    done = ketch("build", "--progress=rawjson", "-o", f"type=tar,dest={archive}", *words, str(context))
    found = files_in(archive)
    assert {name: data for name, data in found.items() if name in FILES} == found
    return steps(done.err)


def test_caches_that_buildkit_wrote(buildkit, ketch, context, tmp_path):
    """Both forms of manifests, and a cache within an image; only what is used is fetched."""
    image = tmp_path / "image.tar"
    output = f"type=oci,dest={image},name=x:latest"
    local = f"type=local,dest={tmp_path}"
    written = [f"{local}/{name},mode=max{more}" for name, more in (("new", ""), ("old", ",image-manifest=false"), ZSTD)]
    for cache in (*written, "type=inline"):
        words = ["--provenance=false", "--cache-to", cache, "-o", output]
        buildkit.docker("buildx", "build", *words, str(context), timeout=120)
    with tarfile.open(image) as tar:
        tar.extractall(tmp_path / "image", filter="data")
    for place in ("new", "old", "zstd", "image"):
        cached, others = built(ketch, context, "--cache-from", f"type=local,src={tmp_path / place}")
        assert others == set(), place
        assert len(cached) >= 8, place
        again = built(ketch, context)
        assert again == (cached, set())  # what was imported is this machine's own now
        ketch("builder", "prune", "-af")
    (context / "d" / "a").write_text("changed")
    FILES_CHANGED = {**FILES, "a": "changed", "l": "changed", "sum": "one\nchanged"}
    archive = tmp_path / "out.tar"
    words = ["--cache-from", f"type=local,src={tmp_path}/new", "-o", f"type=tar,dest={archive}"]
    cached, others = steps(ketch("build", "--progress=rawjson", *words, str(context)).err)
    assert {name.partition("] ")[2] for name in cached} >= {"RUN echo one > /one", "RUN echo two > two"}
    assert {name.partition("] ")[2] for name in others} >= {"COPY --chown=1:2 --chmod=640 . /all"}
    assert files_in(archive).items() <= FILES_CHANGED.items()


def test_caches_that_buildkit_reads(buildkit, ketch, context, tmp_path):
    buildkit.docker("builder", "prune", "-af")
    for place, more in (("max", ",mode=max"), ("min", ""), ("index", ",mode=max,image-manifest=false"), ZSTD):
        cache = tmp_path / place
        built(ketch, context, "--cache-to", f"type=local,dest={cache}{more}")
        words = ["--progress=rawjson", "--cache-from", f"type=local,src={cache}"]
        output = ["-o", f"type=tar,dest={tmp_path}/theirs.tar"]
        done = buildkit.docker("buildx", "build", *words, *output, str(context), timeout=120)
        cached, others = steps(done.err)
        assert others == set(), (place, done.err)
        assert len(cached) >= 8
        assert files_in(tmp_path / "theirs.tar").items() <= FILES.items()
        buildkit.docker("builder", "prune", "-af")


def fetched(registry):
    """The sizes of the blobs that were read of a registry, so far."""
    with open(os.path.join(registry.root, "access.log"), encoding="utf-8") as log:
        lines = [json.loads(line) for line in log]
    return [one["bytes_out"] for one in lines if one["method"] == "GET" and "/blobs/" in one["path"]]


def test_caches_in_registries_and_images(engine, ketch, context):
    with ours() as one:
        registry = one.host
        built(ketch, context, "--cache-to", f"type=registry,ref={registry}/c:all,mode=max")
        ketch("build", "-t", f"{registry}/i:1", "--push", "--cache-to", "type=inline", str(context))
        ketch("builder", "prune", "-af")
        old = engine.docker("build", "--cache-from", f"{registry}/i:1", str(context), DOCKER_BUILDKIT="0")
        assert old.out.count("Using cache") >= 8
        for ref in ("c:all", "i:1"):
            ketch("rmi", "-f", f"{registry}/i:1", check=False)
            ketch("builder", "prune", "-af")
            before = fetched(one)
            cached, others = built(ketch, context, "--cache-from", f"type=registry,ref={registry}/{ref}")
            assert others == set(), ref
            assert len(cached) >= 8, ref
            layers = fetched(one)[len(before) :]
            assert sum(size > 100_000 for size in layers) == 0, layers  # the base is not needed for the last step


def test_caches_that_cannot_be_had(ketch, context, tmp_path):
    """What cannot be read is told and not used; what cannot be written is an error, unless that is to be ignored."""
    words = ["--progress=plain", "-o", "type=cacheonly"]
    done = ketch("build", *words, "--cache-from", "type=registry,ref=127.0.0.1:1/c", str(context))
    assert "the cache cannot be read and is not used" in done.err
    wrong = ["--cache-to", "type=registry,ref=127.0.0.1:1/c"]
    assert ketch("build", *words, *wrong, str(context), check=False).code == 1
    done = ketch("build", *words, "--cache-to", "type=registry,ref=127.0.0.1:1/c,ignore-error=true", str(context))
    assert "the cache cannot be written, which is ignored" in done.err
    for kind in ("gha", "s3", "azblob"):
        done = ketch("build", *words, "--cache-to", f"type={kind}", str(context), check=False)
        assert done.code == 1 and f"cache exporter {kind} is not supported" in done.err
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "blobs").write_text("")
    done = ketch("build", *words, "--cache-to", f"type=local,dest={tmp_path}/file", str(context), check=False)
    assert done.code == 1 and "a cache in a directory of the client: not a directory" in done.err
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "index.json").write_text("{")
    done = ketch("build", *words, "--cache-from", f"type=local,src={tmp_path}/broken", str(context))
    assert "cannot be read" in done.err
