"""What is said of images that are built: kept, shown, pushed, saved, and read by the clients and engines of others."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import urllib.parse
import urllib.request

import pytest

from tests.support import peers
from tests.support.rawapi import Api
from tests.support.registries.registries import registry
from tests.support.waiting import patient

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PROVENANCE, SPDX = "https://slsa.dev/provenance/v1", "https://spdx.dev/Document"
STATUS = "Package: tool\nStatus: install ok installed\nVersion: 1.2-3\nArchitecture: amd64\nMaintainer: Me <me@x>\n"
METADATA = "Metadata-Version: 2.1\nName: Some_Thing\nVersion: 4.5\nLicense: MIT\n"


@pytest.fixture
def context(tmp_path):
    place = tmp_path / "context"
    place.mkdir()
    (place / "status").write_text(STATUS)
    (place / "METADATA").write_text(METADATA)
    (place / "Dockerfile").write_text(
        "FROM busybox\nARG WORD\nRUN echo $WORD > /word\nCOPY status /var/lib/dpkg/status\n"
        "COPY METADATA /opt/venv/lib/python3.11/site-packages/Some_Thing-4.5.dist-info/METADATA\n"
    )
    return place


def blobs(engine) -> set[str]:
    return set(os.listdir(f"{engine.data_root}/content/blobs/sha256"))


def statements(engine, name: str, **query: str) -> list:
    words = urllib.parse.urlencode(query)
    status, answer = Api(engine.socket)("GET", f"/images/{name}/attestations?{words}")
    assert status == 200, answer
    return answer


def packages(document: dict) -> dict[str, str]:
    return {one["name"]: one.get("versionInfo", "") for one in document["packages"]}


def members(path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}


def in_layout(files: dict[str, bytes]) -> tuple[dict, list[dict]]:
    """The image's descriptor and the statements about it, of an archive whose digests are all right."""
    for name, data in files.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(data).hexdigest() == name.removeprefix("blobs/sha256/")

    def read(descriptor: dict) -> dict:
        data = files[f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}"]
        assert len(data) == descriptor["size"]
        return json.loads(data)

    (top,) = json.loads(files["index.json"])["manifests"]
    image, attested = read(top)["manifests"]
    assert attested["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert attested["annotations"] == {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image["digest"],
    }
    manifest = read(attested)
    layers = [layer["digest"] for layer in manifest["layers"]]
    config = {"architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers", "diff_ids": layers}}
    assert read(manifest["config"]) == config
    found = []
    for layer in manifest["layers"]:
        assert layer["mediaType"] == "application/vnd.in-toto+json"
        found.append(read(layer))
        assert layer["annotations"] == {"in-toto.io/predicate-type": found[-1]["predicateType"]}
    return image, found


def test_an_image_has_a_provenance_that_goes_with_it(engine, context):
    """One is made by default, tells no argument, and leaves nothing behind when the image is built again or removed."""
    build = engine.ketch
    before = blobs(engine)
    build("build", "-t", "said:1", "--build-arg=WORD=hidden", str(context))
    (first,) = statements(engine, "said:1", statement="1")
    assert first["PredicateType"] == PROVENANCE
    told = first["Statement"]
    assert "hidden" not in json.dumps(told)
    manifests = Api(engine.socket)("GET", "/images/said:1/json?manifests=1")[1]["Manifests"]
    image, attested = manifests
    assert [one["Kind"] for one in manifests] == ["image", "attestation"]
    assert attested["Available"] is True
    assert attested["AttestationData"] == {"For": image["ID"]}
    assert attested["Size"]["Content"] > first["Descriptor"]["size"]
    assert [one["digest"]["sha256"] for one in told["subject"]] == [image["ID"].removeprefix("sha256:")]
    definition = told["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["configSource"] == {"path": "Dockerfile"}
    (base,) = definition["resolvedDependencies"]
    assert base["uri"].startswith("pkg:docker/busybox@latest?platform=linux%2F")

    count = len(blobs(engine))
    build("build", "-t", "said:1", "--build-arg=WORD=hidden", str(context))
    assert len(blobs(engine)) == count
    (second,) = statements(engine, "said:1")
    assert second["Descriptor"] != first["Descriptor"]
    assert "Statement" not in second
    assert statements(engine, "said:1", type=SPDX) == []
    build("tag", "said:1", "said:2")
    build("rmi", "said:1")
    assert len(statements(engine, "said:2")) == 1
    build("build", "-t", "said:2", "--provenance=false", "--build-arg=WORD=hidden", str(context))
    assert statements(engine, "said:2") == []
    build("rmi", "said:2")
    build("builder", "prune", "-af")
    assert blobs(engine) <= before


def test_read_from_a_registry_by_others(engine, context):
    """buildx finds provenance and packages, and what they are about is the manifest in the registry."""
    with registry() as there:
        name = f"{there.host}/said:1"
        words = ["--provenance=mode=max", "--sbom=true", "--build-arg=WORD=shown"]
        engine.ketch("build", "-t", name, "--push", *words, str(context))

        def inspect(field: str) -> dict:
            done = engine.docker("buildx", "imagetools", "inspect", "--format", f"{{{{json .{field}}}}}", name)
            return json.loads(done.out)

        provenance, found = inspect("Provenance"), inspect("SBOM")
        predicate = provenance["SLSA"]
        request = predicate["buildDefinition"]["externalParameters"]["request"]
        assert request["args"] == {"build-arg:WORD": "shown"}
        steps = predicate["buildDefinition"]["internalParameters"]["buildConfig"]["llbDefinition"]
        assert any("echo $WORD > /word" in json.dumps(step) for step in steps)
        assert packages(found["SPDX"]) == {"tool": "1.2-3", "some-thing": "4.5", "sbom": ""}
        index = inspect("Manifest")
        image, attested = index["manifests"]
        assert attested["annotations"]["vnd.docker.reference.digest"] == image["digest"]
        (subject,) = {one["digest"]["sha256"] for one in statements_of(there, name, attested)}
        assert f"sha256:{subject}" == image["digest"]
        layers = {one["digest"] for one in manifest_of(there, name, image["digest"])["layers"]}
        shown = predicate["runDetails"]["metadata"]["buildkit_metadata"]["layers"]
        assert {one["digest"] for forms in shown.values() for form in forms for one in form} == layers
        engine.ketch("rmi", name)


def fetched(there, name: str, what: str) -> dict:
    path = name.partition("/")[2].partition(":")[0]
    wanted = urllib.request.Request(f"http://{there.host}/v2/{path}/{what}", headers={"Accept": MANIFEST})
    with urllib.request.urlopen(wanted) as answer:
        return json.load(answer)


def manifest_of(there, name: str, digest: str) -> dict:
    return fetched(there, name, f"manifests/{digest}")


def statements_of(there, name: str, attested: dict) -> list[dict]:
    """The subjects of all statements of an attestation manifest in a registry."""
    layers = manifest_of(there, name, attested["digest"])["layers"]
    return [one for layer in layers for one in fetched(there, name, f"blobs/{layer['digest']}")["subject"]]


def test_in_archives_and_beside_files(engine, context, tmp_path):
    output = tmp_path / "image.tar"
    engine.ketch("build", "-t", "said:3", "--attest=type=provenance", f"-o=type=oci,dest={output}", str(context))
    image, (told,) = in_layout(members(output))
    assert told["subject"] == [
        {"name": "pkg:docker/said@3?platform=linux%2Famd64", "digest": {"sha256": image["digest"][7:]}}
    ]
    files = tmp_path / "files"
    words = ["--attest=type=provenance,filename=how.json", "--sbom=true"]
    engine.ketch("build", *words, f"-o={files}", str(context))
    about = {one["name"]: one["digest"]["sha256"] for one in json.loads((files / "how.json").read_text())["subject"]}
    assert about["var/lib/dpkg/status"] == hashlib.sha256(STATUS.encode()).hexdigest()
    assert "tool" in packages(json.loads((files / "sbom.spdx.json").read_text())["predicate"])
    inline = tmp_path / "inline"
    engine.ketch("build", "--provenance=mode=min,inline-only=true", f"-o={inline}", str(context))
    assert not (inline / "provenance.json").exists()


def test_saved_and_loaded(engine, context, tmp_path):
    engine.ketch("build", "-t", "said:4", "--sbom=true", str(context))
    before = statements(engine, "said:4")
    engine.ketch("save", "-o", str(tmp_path / "saved.tar"), "said:4")
    _, found = in_layout(members(tmp_path / "saved.tar"))
    assert [one["predicateType"] for one in found] == [SPDX, PROVENANCE]
    engine.ketch("rmi", "said:4")
    engine.ketch("load", "-i", str(tmp_path / "saved.tar"))
    assert statements(engine, "said:4") == before
    engine.ketch("rmi", "said:4")


def test_a_generator_s_own_list(engine, context, tmp_path):
    """An image that follows BuildKit's protocol lists the packages; one that writes nonsense fails the build."""
    document = {"spdxVersion": "SPDX-2.3", "name": "$(basename $BUILDKIT_SCAN_SOURCE)", "packages": []}
    statement = {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": SPDX,
        "subject": [],
        "predicate": document,
    }
    script = (
        '#!/bin/sh\nset -e\ntest -f $BUILDKIT_SCAN_SOURCE/word\ntest "$BUILDKIT_SCAN_MORE" = yes\n'
        'test -z "$BUILDKIT_SCAN_SOURCE_EXTRAS"\n! touch $BUILDKIT_SCAN_SOURCE/x 2>/dev/null\n'
        f"cat > $BUILDKIT_SCAN_DESTINATION/sbom.spdx.json <<END\n{json.dumps(statement)}\nEND\n"
    )
    place = tmp_path / "scanner"
    place.mkdir()
    (place / "scan").write_text(script)
    (place / "Dockerfile").write_text('FROM busybox\nCOPY --chmod=755 scan /scan\nENTRYPOINT ["/scan"]\n')
    engine.ketch("build", "-t", "scanner:1", str(place))
    engine.ketch("build", "-t", "said:5", "--sbom=generator=scanner:1,MORE=yes", str(context))
    (found,) = statements(engine, "said:5", type=SPDX, statement="1")
    assert found["Statement"]["predicate"]["name"] == "sbom"
    assert found["Statement"]["subject"][0]["name"].startswith("pkg:docker/said@5")
    engine.ketch("rmi", "said:5")

    (place / "scan").write_text("#!/bin/sh\necho nonsense > $BUILDKIT_SCAN_DESTINATION/sbom.spdx.json\n")
    engine.ketch("build", "-t", "scanner:1", str(place))
    failed = engine.ketch("build", "--sbom=generator=scanner:1", str(context), check=False)
    assert failed.code == 1
    assert "sbom.spdx.json: cannot decode in-toto statement" in failed.err
    engine.ketch("rmi", "scanner:1")


def test_copied_whole_by_others(engine, context, tmp_path):
    """skopeo copies an archive with all that it has."""
    peers.need()
    output = tmp_path / "image.tar"
    engine.ketch("build", "-t", "said:6", "--attest=type=provenance", f"-o=type=oci,dest={output}", str(context))
    copied = tmp_path / "copied"
    subprocess.run(
        peers.command("skopeo", "copy", "--all", f"oci-archive:{output}", f"oci:{copied}"),
        check=True,
        timeout=patient(60),
    )
    (top,) = json.loads((copied / "index.json").read_text())["manifests"]
    assert top["mediaType"] == "application/vnd.oci.image.index.v1+json"
