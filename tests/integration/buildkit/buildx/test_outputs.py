"""Outputs of ``docker buildx build`` in a registry: media types, compressions, digests, several platforms."""

from __future__ import annotations

import json
import tarfile

import pytest

from ketch.oci import manifest as oci
from tests.support.registries.registries import ours

# dockerd without containerd's images has neither attestations, platforms nor archives, and overlooks most options.
pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]

DOCKERFILE = "FROM busybox\nRUN echo made >/made\nCMD cat /made\n"


@pytest.fixture(scope="module")
def registry():
    with ours() as one:
        yield one


@pytest.fixture
def build(engine, tmp_path):
    """Runs ``docker buildx build`` in a directory with a Dockerfile."""
    top = tmp_path / "context"
    top.mkdir()
    (top / "Dockerfile").write_text(DOCKERFILE)

    def run(*words, check=True, text=None):
        if text is not None:
            (top / "Dockerfile").write_text(text)
        words = ("buildx", "build", "--progress=plain", *words, str(top))
        return engine.docker(*words, check=check, timeout=60)

    return run


@pytest.fixture
def raw(engine):
    """What a registry has under a name."""

    def run(name):
        return json.loads(engine.docker("buildx", "imagetools", "inspect", "--raw", name).out)

    return run


def named(engine, name):
    return engine.docker("images", "-q", name).out.split()


def runs(engine, name):
    """An image of a registry is what was built."""
    engine.docker("rmi", "-f", name, check=False)
    engine.docker("pull", "-q", name)
    try:
        return engine.docker("run", "--rm", name).out == "made\n"
    finally:
        engine.docker("rmi", "-f", name)


@pytest.mark.parametrize(
    ("compression", "layer"),
    [
        ("", oci.DOCKER_LAYER),
        (",compression=zstd,force-compression=true", oci.DOCKER_LAYER_ZSTD),
        (",compression=uncompressed,force-compression=true", oci.DOCKER_LAYER_PLAIN),
    ],
)
def test_types_of_docker(build, raw, engine, registry, compression, layer):
    name = f"{registry.host}/types:1"
    words = f"type=image,name={name},push=true,oci-mediatypes=false{compression}"
    build("--provenance=false", "-o", words)
    found = raw(name)
    assert found["mediaType"] == oci.DOCKER_MANIFEST
    assert found["config"]["mediaType"] == oci.DOCKER_CONFIG
    assert {one["mediaType"] for one in found["layers"]} == {layer}
    assert runs(engine, name)


def test_what_types_of_docker_cannot_say(build, raw, registry):
    """Attestations and annotations need OCI's types, whatever is asked for."""
    name = f"{registry.host}/types:2"
    build("--provenance=true", "-o", f"type=image,name={name},push=true,oci-mediatypes=false")
    found = raw(name)
    assert found["mediaType"] == oci.INDEX
    assert {one["mediaType"] for one in found["manifests"]} == {oci.MANIFEST}


@pytest.mark.parametrize("kind", ["", ",oci-mediatypes=false"])
def test_several_platforms(build, raw, engine, registry, kind, tmp_path):
    name = f"{registry.host}/many:1"
    text = "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n"
    platforms = ("--platform", "linux/amd64,linux/arm64", "--provenance=false")
    build(*platforms, "-o", f"type=image,name={name},push=true{kind}", text=text)
    found = raw(name)
    if kind:
        assert found["mediaType"] == oci.DOCKER_INDEX
        assert {one["mediaType"] for one in found["manifests"]} == {oci.DOCKER_MANIFEST}
    else:
        assert found["mediaType"] == oci.INDEX
    assert [one["platform"]["architecture"] for one in found["manifests"]] == ["amd64", "arm64"]
    shown = engine.docker("buildx", "imagetools", "inspect", "--format", "{{json .Image}}", name).out
    assert set(json.loads(shown)) == {"linux/amd64", "linux/arm64"}
    copy = f"{registry.host}/copied:1"
    engine.docker("buildx", "imagetools", "create", "-t", copy, "--annotation", "index:a=b", name)
    copied = raw(copy)
    assert [one["digest"] for one in copied["manifests"]] == [one["digest"] for one in found["manifests"]]
    for architecture in ("arm64", "amd64"):
        engine.docker("rmi", "-f", name, copy, check=False)
        engine.docker("pull", "-q", "--platform", f"linux/{architecture}", copy)
        (image,) = json.loads(engine.docker("image", "inspect", copy).out)
        assert image["Architecture"] == architecture
    engine.docker("rmi", "-f", copy)


def test_what_is_told_of_a_push(build, raw, engine, registry, tmp_path):
    name = f"{registry.host}/told:1"
    words = ("--provenance=false", "--metadata-file", f"{tmp_path}/facts")
    build(*words, "-o", f"type=image,name={name},push=true,name-canonical=true", text=DOCKERFILE + "LABEL a=told\n")
    facts = json.loads((tmp_path / "facts").read_text())
    descriptor, digest = facts["containerimage.descriptor"], facts["containerimage.digest"]
    assert descriptor["digest"] == digest
    assert descriptor["platform"]["os"] == "linux"
    shown = engine.docker("buildx", "imagetools", "inspect", "--format", "{{json .Manifest}}", name).out
    assert json.loads(shown)["digest"] == digest
    assert json.loads(shown)["size"] == descriptor["size"]
    repository = name.rpartition(":")[0]
    (image,) = json.loads(engine.docker("image", "inspect", f"{repository}@{digest}").out)
    assert image["RepoDigests"] == [f"{repository}@{digest}"]


def test_a_push_that_leaves_nothing_here(build, engine, registry):
    name = f"{registry.host}/gone:1"
    before = engine.docker("images", "-aq").out
    build("-o", f"type=image,name={name},push=true,store=false", text=DOCKERFILE + "LABEL a=gone\n")
    assert named(engine, name) == []
    assert engine.docker("images", "-aq").out == before
    assert runs(engine, name)


def test_archives_leave_nothing_here(build, engine, tmp_path):
    before = engine.docker("images", "-aq").out
    build("-o", f"type=oci,dest={tmp_path}/oci.tar", text=DOCKERFILE + "LABEL a=archive\n")
    assert engine.docker("images", "-aq").out == before


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", ["linux_amd64/amd64", "linux_arm64/arm64"]),
        (",platform-split=true", ["linux_amd64/amd64", "linux_arm64/arm64"]),
        (",platform-split=false", ["amd64", "arm64"]),
    ],
)
def test_files_of_several_platforms(build, tmp_path, words, found):
    text = "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n"
    platforms = ("--platform", "linux/amd64,linux/arm64", "--provenance=false")
    out, archive = tmp_path / "out", tmp_path / "out.tar"
    build(*platforms, "-o", f"type=local,dest={out}{words}", "-o", f"type=tar,dest={archive}{words}", text=text)
    assert sorted(str(one.relative_to(out)) for one in out.rglob("*") if one.is_file()) == found
    with tarfile.open(archive) as tar:
        assert sorted(member.name for member in tar if member.isfile()) == found


@pytest.mark.parametrize("kind", ["local", "tar"])
def test_files_at_one_place(build, tmp_path, kind):
    """What one platform has is not overwritten with another's."""
    words = ("--platform", "linux/amd64,linux/arm64", "-o", f"type={kind},dest={tmp_path}/out,platform-split=false")
    done = build(*words, text="FROM scratch\nCOPY Dockerfile /d/f\n", check=False)
    assert done.code == 1
    assert "cannot overwrite d/f from linux/amd64 with linux/arm64 when split option is disabled" in done.err


def test_what_is_said_of_files_of_several_platforms(build, tmp_path):
    words = ("--platform", "linux/amd64,linux/arm64", "--provenance=true")
    text = "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n"
    build(*words, "-o", f"type=local,dest={tmp_path}/out,platform-split=false", text=text)
    found = sorted(one.name for one in (tmp_path / "out").iterdir())
    assert found == ["amd64", "arm64", "provenance.linux_amd64.json", "provenance.linux_arm64.json"]


def test_a_directory_for_a_platform_alone(build, tmp_path):
    build("-o", f"type=local,dest={tmp_path}/out,platform-split=true", text="FROM scratch\nCOPY Dockerfile /f\n")
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["linux_amd64"]


@pytest.mark.parametrize("switch", ["store", "oci-mediatypes", "push", "name-canonical", "rewrite-timestamp"])
def test_switches_that_are_none(build, switch):
    done = build("-o", f"type=image,name=x:1,{switch}=maybe", check=False)
    assert done.code == 1
    assert switch in done.err and "maybe" in done.err


def test_a_push_by_digest(engine, raw, registry, tmp_path):
    """The registry gets no tag; here the image has no name but its digest's."""
    repository = f"{registry.host}/digests"
    text = (DOCKERFILE + "LABEL a=digest\n").encode()
    words = f"type=image,name={repository},push=true,push-by-digest=true"
    engine.ketch("build", "--metadata-file", f"{tmp_path}/facts", "-o", words, "-", stdin=text)
    digest = json.loads((tmp_path / "facts").read_text())["containerimage.digest"]
    assert raw(f"{repository}@{digest}")["schemaVersion"] == 2
    assert engine.docker("manifest", "inspect", f"{repository}:latest", check=False).code == 1
    (image,) = json.loads(engine.docker("image", "inspect", f"{repository}@{digest}").out)
    assert (image["RepoTags"], image["RepoDigests"]) == ([], [f"{repository}@{digest}"])
    engine.docker("rmi", "-f", image["Id"])


COMPOSED = """
services:
  base:
    image: {host}/composed/base:1
    build: {{context: ., target: base}}
  web:
    image: {host}/composed/web:1
    depends_on: [base]
    build:
      context: .
      target: web
      tags: ["{host}/composed/web:2"]
      additional_contexts: {{below: "service:base"}}
      cache_to: ["type=registry,ref={host}/composed/cache"]
      cache_from: ["type=registry,ref={host}/composed/cache"]
  other:
    image: {host}/composed/other:1
    build: {{context: ., target: base}}
"""


def test_compose_pushes(engine, raw, registry, tmp_path):
    (tmp_path / "compose.yaml").write_text(COMPOSED.format(host=registry.host))
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS base\nRUN echo base >/base\nFROM below AS web\nRUN echo web >/web\n"
    )
    words = ("build", "--push", "--with-dependencies", "--provenance=true", "web")
    engine.docker("compose", *words, cwd=str(tmp_path), timeout=90)
    for name in ("base:1", "web:1", "web:2"):
        found = raw(f"{registry.host}/composed/{name}")
        kinds = [one.get("annotations", {}).get("vnd.docker.reference.type") for one in found["manifests"]]
        assert kinds == [None, "attestation-manifest"]
    assert "composed/cache" in registry.repositories()
    assert "composed/other" not in registry.repositories()
    assert engine.docker("run", "--rm", f"{registry.host}/composed/web:2", "cat", "/base", "/web").out == "base\nweb\n"
    made = engine.docker("images", "-q", "--filter", f"reference={registry.host}/composed/*").out.split()
    engine.docker("rmi", "-f", *set(made))
