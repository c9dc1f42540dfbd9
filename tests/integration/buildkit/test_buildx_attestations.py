"""Attestations, policies of sources and front ends that are images, through buildx."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.support.building import frontend_image
from tests.support.engines import busybox_tar
from tests.support.rawapi import Api
from tests.support.registries.registries import registry
from tests.support.waiting import patient

if TYPE_CHECKING:
    import pathlib

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]


@pytest.fixture
def context(tmp_path: pathlib.Path) -> pathlib.Path:
    place = tmp_path / "context"
    place.mkdir()
    (place / "status").write_text("Package: tool\nStatus: install ok installed\nVersion: 1.2-3\nArchitecture: amd64\n")
    (place / "Dockerfile").write_text(
        "FROM busybox\nARG WORD\nRUN echo $WORD > /word\nCOPY status /var/lib/dpkg/status\n"
    )
    return place


def statements(engine, name: str) -> dict:
    status, answer = Api(engine.socket)("GET", f"/images/{urllib.parse.quote(name)}/attestations?statement=1")
    assert status == 200, answer
    return {one["PredicateType"]: one["Statement"] for one in answer}


def test_attestations(engine, context):
    with registry() as there:
        name = f"{there.host}/said:1"
        words = ["--provenance=mode=max,version=v1", "--sbom=true", "--build-arg=WORD=shown"]
        engine.docker("buildx", "build", "-t", name, "--push", *words, str(context), timeout=60)

        def inspect(field: str) -> dict:
            done = engine.docker("buildx", "imagetools", "inspect", "--format", f"{{{{json .{field}}}}}", name)
            return json.loads(done.out)

        predicate = inspect("Provenance")["SLSA"]
        request = predicate["buildDefinition"]["externalParameters"]["request"]
        assert request["args"]["build-arg:WORD"] == "shown"
        assert request["locals"] == [{"name": "context"}, {"name": "dockerfile"}]
        assert {one["name"] for one in inspect("SBOM")["SPDX"]["packages"]} == {"tool", "sbom"}
        engine.docker("rmi", name)


def test_a_provenance_by_default(engine, context):
    engine.docker("buildx", "build", "-t", "said:1", "--build-arg=WORD=hidden", str(context), timeout=60)
    (told,) = statements(engine, "said:1").values()
    assert "hidden" not in json.dumps(told)
    engine.docker("buildx", "build", "-t", "said:1", "--provenance=false", str(context), timeout=60)
    assert statements(engine, "said:1") == {}
    engine.docker("rmi", "said:1")


def test_pushed_later_and_pulled(engine, context):
    """Layers are compressed for the push: what is pushed is said of the manifest that is pushed then."""
    before = blobs(engine)
    with registry() as there:
        name = f"{there.host}/said:1"
        engine.docker("buildx", "build", "-t", name, "--sbom=true", "--provenance=mode=max", str(context), timeout=60)
        engine.docker("push", "-q", name, timeout=60)

        def raw(of: str) -> dict:
            return json.loads(engine.docker("buildx", "imagetools", "inspect", "--raw", of).out)

        image, about = raw(name)["manifests"]
        assert about["annotations"]["vnd.docker.reference.digest"] == image["digest"]
        layers = [one["digest"] for one in raw(f"{there.host}/said@{image['digest']}")["layers"]]
        told = {}
        for layer in raw(f"{there.host}/said@{about['digest']}")["layers"]:
            with urllib.request.urlopen(
                f"http://{there.host}/v2/said/blobs/{layer['digest']}", timeout=patient(30)
            ) as answer:
                told[layer["annotations"]["in-toto.io/predicate-type"]] = json.load(answer)
        assert {one["subject"][0]["digest"]["sha256"] for one in told.values()} == {image["digest"].partition(":")[2]}
        of_result = told["https://slsa.dev/provenance/v1"]["predicate"]["runDetails"]["metadata"]["buildkit_metadata"]
        listed = [[one["digest"] for one in forms[0]] for forms in of_result["layers"].values()]
        assert layers in listed
        engine.docker("rmi", name)
        engine.docker("pull", "-q", name, timeout=60)
        shown = engine.docker("image", "inspect", "--platform=linux/amd64", "--format={{json .Descriptor}}", name).out
        assert json.loads(shown)["digest"] == image["digest"]
        plain = engine.docker("image", "inspect", "--format={{json .Descriptor}}", name).out
        assert json.loads(plain)["mediaType"] == "application/vnd.oci.image.index.v1+json"
        engine.docker("rmi", name)
    engine.docker("buildx", "prune", "-af")
    assert blobs(engine) == before


def blobs(engine) -> set[str]:
    return set(os.listdir(f"{engine.data_root}/content/blobs/sha256"))


def said_of(engine, name: str) -> list[dict]:
    status, answer = Api(engine.socket)("GET", f"/images/{name}/attestations?statement=1")
    assert status == 200, answer
    return [one["Statement"] for one in answer]


def test_stages_and_the_context_are_listed_too(engine, context):
    """By Ketch itself, and by an image that is told where they are."""
    (context / "Dockerfile").write_text(
        "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n"
        "FROM busybox AS base\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY status /var/lib/dpkg/status\n"
        "FROM base AS unused\nRUN false\n"
        "FROM busybox\nCOPY --from=base /etc/passwd /p\n"
    )
    words = ["buildx", "build", "-t", "said:1", "--provenance=false"]
    engine.docker(*words, "--sbom=true", str(context), timeout=60)
    lists = {one["predicate"]["name"]: one["predicate"] for one in said_of(engine, "said:1")}
    assert set(lists) == {"sbom", "sbom-base", "sbom-context"}
    assert {one["name"] for one in lists["sbom-base"]["packages"]} == {"tool", "sbom-base"}
    assert {one["name"] for one in lists["sbom"]["packages"]} == {"sbom"}

    generator = context / "generator"
    generator.mkdir()
    (generator / "scan").write_text(
        "cd $BUILDKIT_SCAN_DESTINATION\n"
        "for tree in $BUILDKIT_SCAN_SOURCE $BUILDKIT_SCAN_SOURCE_EXTRAS/*; do\n"
        """  printf '{"predicateType": "https://spdx.dev/Document", "subject": null, "predicate": {"of": "%s"}}' \\\n"""
        '    "${tree##*/}: $(ls $tree | grep -v bin | head -n 3 | xargs)" > ${tree##*/}.spdx.json\n'
        "done\n"
    )
    (generator / "Dockerfile").write_text('FROM busybox\nCOPY scan /scan\nENTRYPOINT ["sh", "/scan"]\n')
    engine.docker("buildx", "build", "-t", "generator:1", "--provenance=false", str(generator), timeout=60)
    engine.docker(*words, "--sbom=generator=generator:1", str(context), timeout=60)
    told = said_of(engine, "said:1")
    assert [one["predicate"]["of"].partition(":")[0] for one in told] == ["sbom", "sbom-base", "sbom-context"]
    assert "Dockerfile" not in told[2]["predicate"]["of"]
    assert "status" in told[2]["predicate"]["of"]
    assert all("said" in one["subject"][0]["name"] for one in told)
    engine.docker("rmi", "said:1", "generator:1")


def test_policies_of_sources(engine, context, tmp_path):
    """A source is denied; another takes the place of one."""
    engine.docker("import", "-", "other:1", stdin=busybox_tar())
    policy = tmp_path / "policy.json"
    busybox = {"identifier": "docker-image://docker.io/library/busybox*"}

    def build(*rules: dict, check: bool = True):
        policy.write_text(json.dumps({"rules": list(rules)}))
        words = ["buildx", "build", "--progress=plain", "-t", "judged:1", str(context)]
        return engine.docker(*words, timeout=60, check=check, EXPERIMENTAL_BUILDKIT_SOURCE_POLICY=str(policy))

    failed = build({"action": "DENY", "selector": busybox}, check=False)
    assert failed.code
    assert "denied by policy" in failed.err
    update = {"identifier": "docker-image://docker.io/library/other:1"}
    done = build({"action": "CONVERT", "selector": busybox, "updates": update})
    assert "docker.io/library/other:1" in done.err
    engine.docker("rmi", "judged:1", "other:1")


def test_a_front_end_that_is_an_image(engine, context):
    """The first line of a Dockerfile names it."""
    changes = [
        f"ENTRYPOINT {json.dumps(frontend_image.COMMAND)}",
        *(f"ENV {one}" for one in frontend_image.ENVIRONMENT),
    ]
    flags = [word for one in changes for word in ("-c", one)]
    engine.docker("import", *flags, "-", "front:1", stdin=frontend_image.archive(), timeout=60)
    (context / "Dockerfile").write_text("# syntax=front:1\nwhatever it likes\n")
    words = ["--build-arg=x=y", "-t", "fronted:1", str(context)]
    failed = engine.docker("buildx", "build", *words, timeout=60, check=False)
    assert "front:1 ended without a result" in failed.err  # it is told nothing to do
    engine.docker("rmi", "front:1")
