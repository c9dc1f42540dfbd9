"""Provenance: options, what a graph takes from elsewhere, both forms of the predicate, its steps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ketch.build.attest import options, purl
from ketch.build.attest.capture import capture
from ketch.build.attest.graph import steps
from ketch.build.attest.provenance import BuildFacts, Provenance
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import Action, MountInput, execute, files, output_at, source
from ketch.errors import InvalidArgument
from ketch.oci.manifest import Descriptor, Platform

if TYPE_CHECKING:
    from ketch.build.llb.vertex import Edge

AMD64 = pb.Platform(OS="linux", Architecture="amd64")
MACHINE = Platform(os="linux", architecture="amd64")
DIGEST = "sha256:" + "ab" * 32
NS = 10**9


def image(name: str = f"docker.io/library/b:1@{DIGEST}") -> Edge:
    return source(f"docker-image://{name}", {"image.resolvemode": "local"}, AMD64)


def run(base: Edge, *mounts: MountInput, **more: Any) -> Edge:
    meta = pb.Meta(args=["/bin/sh", "-c", "make"], cwd="/")
    return output_at(execute(pb.ExecOp(meta=meta, **more), [*mounts, MountInput(pb.Mount(dest="/"), base)], AMD64), "/")


def told(edge: Edge | None, text: str = "", **more: Any) -> dict[str, Any]:
    """The predicate of a result, by the value of ``attest:provenance``."""
    wanted = options.read({"attest:provenance": text}).provenance
    assert wanted is not None
    pins = more.pop("pins", {})
    layers, place = more.pop("layers", {}), more.pop("source", None)
    facts = BuildFacts(ref="r1", started=1_700_000_000 * NS, machine=MACHINE, **more)
    found = Provenance(options=wanted, facts=facts, captured=capture(edge, pins), result=edge, source=place)
    return json.loads(found.attestation(1_700_000_001 * NS + 5, layers).predicate)


# -- options -------------------------------------------------------------------------------------


def test_what_is_asked_for_is_read_as_buildkit_reads_it():
    found = options.read({"attest:provenance": "mode=min,inline-only=true,builder-id=https://b,version=v0.2", "x": "y"})
    assert found.sbom is None
    assert found.provenance == options.ProvenanceOptions(
        mode="min", inline_only=True, builder_id="https://b", version="v0.2"
    )
    assert options.read({"attest:provenance": ""}).provenance == options.ProvenanceOptions(mode="max")
    assert options.read({"build-arg:BUILDKIT_ATTEST_SBOM": ""}).sbom == options.SbomOptions()
    sbom = options.read({"attest:sbom": "generator=scan:1,EXTRA=1"}).sbom
    assert sbom == options.SbomOptions(generator="scan:1", params={"EXTRA": "1"})
    assert options.read({"attest:sbom": "disabled=true", "attest:provenance": "disabled=1"}) == options.AttestOptions()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("attest:provenance", "mode=most", 'invalid mode "most"'),
        ("attest:provenance", "version=v2", "invalid provenance SLSA version: v2"),
        ("attest:provenance", "reproducible=maybe", 'reproducible flag "maybe"'),
        ("attest:provenance", "filename=a/b", "invalid file name `a/b`"),
        ("attest:provenance", '"mode=min', "failed to parse provenance"),
        ("attest:other", "", "unknown attestation type"),
    ],
)
def test_what_cannot_be_is_refused(name: str, value: str, words: str):
    with pytest.raises(InvalidArgument, match=words):
        options.read({name: value})


# -- what a graph takes from elsewhere -------------------------------------------------------------


def test_a_graph_s_sources_are_captured_with_what_they_stood_for():
    git = source("git://host/r.git#main:sub", {"git.fullurl": "https://me:secret@host/r.git"})
    web = source("https://host/f.tar", {})
    local = source("local://context", {"local.session": "s"})
    base = files(image(), [Action(pb.FileAction(copy=pb.FileActionCopy(src="/", dest="/")), one) for one in (git, web)])
    base = files(base, [Action(pb.FileAction(copy=pb.FileActionCopy(src="/", dest="/")), local)])
    found = capture(base, {git.vertex.digest: "c0ffee", web.vertex.digest: "sha256:12"})
    assert [tuple(one) for one in found.materials] == [
        ("pkg:docker/b@1?platform=linux%2Famd64", ("sha256", "ab" * 32)),
        ("https://xxxxx:xxxxx@host/r.git#main:sub", ("sha1", "c0ffee")),
        ("https://host/f.tar", ("sha256", "12")),
    ]
    assert list(found.directories) == ["context"]
    assert not found.incomplete
    assert not found.network


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("version", ["v1", "v0.2"])
def test_passwords_of_addresses_are_not_told(mode, version):
    address = "https://me:secret@host/r.git#main"
    git = source("git://host/r.git#main", {"git.fullurl": address.partition("#")[0]})
    web = source("https://me:secret@host/f.tar", {})
    result = files(git, [Action(pb.FileAction(copy=pb.FileActionCopy(src="/", dest="/")), web)])
    facts = BuildFacts(ref="r", started=0, machine=MACHINE, attrs={"context": address, "context:b": address})
    told = Provenance(
        options=options.ProvenanceOptions(mode=mode, version=version),
        facts=facts,
        captured=capture(result, {git.vertex.digest: "c0ffee", web.vertex.digest: "sha256:12"}),
        result=result,
    )
    found = told.attestation(0, {}).predicate.decode()
    assert "secret" not in found
    assert '"uri":"https://xxxxx:xxxxx@host/r.git#main","digest":{"sha1":"c0ffee"}' in found


def test_a_source_of_which_nobody_knows_what_it_stood_for_makes_it_incomplete():
    assert capture(source("https://host/f.tar", {}), {}).incomplete
    assert capture(image("docker.io/library/b:1"), {}).incomplete
    assert not capture(image(), {}).incomplete


def test_secrets_agents_and_the_network_are_captured():
    mounts = [
        MountInput(pb.Mount(dest="/s", mountType=pb.SECRET, secretOpt=pb.SecretOpt(ID="s", optional=True))),
        MountInput(pb.Mount(dest="/a", mountType=pb.SSH, SSHOpt=pb.SSHOpt(ID="", optional=True))),
    ]
    quiet = run(image(), *mounts, network=pb.NONE, secretenv=[pb.SecretEnv(ID="s", name="S"), pb.SecretEnv(ID="t")])
    found = capture(quiet, {})
    assert found.secrets == {"s": False, "t": False}  # one that is needed somewhere is needed
    assert found.agents == {"default": True}
    assert not found.network
    assert capture(run(image()), {}).network


def test_package_urls():
    assert purl.image("debian", None) == "pkg:docker/debian@latest"
    assert purl.image("ghcr.io/a/b:1", MACHINE) == "pkg:docker/ghcr.io/a/b@1?platform=linux%2Famd64"
    assert purl.image(f"localhost:5000/b@{DIGEST}", None) == f"pkg:docker/localhost:5000/b?digest={DIGEST}"
    assert purl.package("npm", "core", "1.0+x", space="@babel") == "pkg:npm/%40babel/core@1.0%2Bx"


# -- the predicate -------------------------------------------------------------------------------


def test_min_tells_no_argument_no_secret_and_no_step():
    attrs = {
        "build-arg:A": "hidden",
        "label:l": "hidden",
        "target": "x",
        "filename": "Dockerfile",
        "platform": "linux/amd64",
        "attest:provenance": "mode=min",
        "vcs:source": "https://s",
        "vcs:revision": "",
    }
    found = told(run(image()), "mode=min", attrs=attrs)
    assert "hidden" not in json.dumps(found)
    definition, details = found["buildDefinition"], found["runDetails"]
    assert definition["buildType"].startswith("https://github.com/moby/buildkit/")
    assert definition["externalParameters"] == {
        "configSource": {"path": "Dockerfile"},
        "request": {"frontend": "dockerfile.v0", "args": {"target": "x"}},
    }
    assert definition["internalParameters"] == {"builderPlatform": "linux/amd64"}
    assert definition["resolvedDependencies"] == [
        {"uri": "pkg:docker/b@1?platform=linux%2Famd64", "digest": {"sha256": "ab" * 32}}
    ]
    assert details["builder"] == {"id": ""}
    metadata = details["metadata"]
    assert metadata["startedOn"] == "2023-11-14T22:13:20Z"
    assert metadata["finishedOn"] == "2023-11-14T22:13:21.000000005Z"
    assert metadata["buildkit_completeness"] == {"request": False, "resolvedDependencies": True}
    assert metadata["buildkit_metadata"] == {"vcs": {"source": "https://s"}}
    assert "buildkit_hermetic" not in metadata


def test_max_tells_steps_lines_and_layers():
    edge = run(image())
    place = pb.Source(infos=[pb.SourceInfo(filename="Dockerfile", data=b"FROM b:1\nRUN make\n", language="Dockerfile")])
    place.locations[edge.vertex.digest].locations.append(
        pb.Location(ranges=[pb.Range(start=pb.Position(line=2), end=pb.Position(line=2))])
    )
    place.locations["sha256:gone"].SetInParent()
    layer = Descriptor(media_type="application/vnd.oci.image.layer.v1.tar", digest=DIGEST, size=3)
    found = told(edge, "", source=place, layers={edge: [[layer]]}, attrs={"build-arg:A": "b"})
    config = found["buildDefinition"]["internalParameters"]["buildConfig"]
    assert [row["id"] for row in config["llbDefinition"]] == ["step0", "step1", "step2"]
    assert config["llbDefinition"][1]["inputs"] == ["step0:0"]
    assert config["llbDefinition"][1]["op"]["Op"]["exec"]["meta"]["args"] == ["/bin/sh", "-c", "make"]
    assert config["llbDefinition"][2] == {"id": "step2", "op": {"Op": {}}, "inputs": ["step1:0"]}
    assert config["digestMapping"][edge.vertex.digest] == "step1"
    extra = found["runDetails"]["metadata"]["buildkit_metadata"]
    assert extra["layers"] == {"step1:0": [[{"mediaType": layer.media_type, "digest": DIGEST, "size": 3}]]}
    assert extra["source"]["locations"] == {
        "step1": {"locations": [{"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]}]}
    }
    assert found["buildDefinition"]["externalParameters"]["request"]["args"] == {"build-arg:A": "b"}
    assert found["runDetails"]["metadata"]["buildkit_completeness"]["request"] is True


def test_the_older_form_has_the_same_facts_at_its_own_places():
    found = told(run(image(), network=pb.NONE), "mode=min,version=v0.2,reproducible=true,builder-id=b", attrs={})
    assert found["buildType"] == "https://mobyproject.org/buildkit@v1"
    assert found["builder"] == {"id": "b"}
    assert found["materials"][0]["uri"] == "pkg:docker/b@1?platform=linux%2Famd64"
    assert found["invocation"]["environment"] == {"platform": "linux/amd64"}
    metadata = found["metadata"]
    assert metadata["completeness"] == {"parameters": True, "environment": True, "materials": True}
    assert metadata["reproducible"] is True
    assert metadata["https://mobyproject.org/buildkit@v1#hermetic"] is True


def test_a_remote_context_is_where_the_build_came_from():
    git = source("git://host/r.git#main", {"git.fullurl": "https://host/r.git"})
    attrs = {"context": "https://host/r.git#main", "filename": "D"}
    found = told(git, "mode=min", attrs=attrs, pins={git.vertex.digest: "c0ffee"})
    assert found["buildDefinition"]["externalParameters"]["configSource"] == {
        "uri": "https://host/r.git#main",
        "digest": {"sha1": "c0ffee"},
        "path": "D",
    }
    assert found["runDetails"]["metadata"]["buildkit_hermetic"] is True


def test_an_empty_result_has_a_provenance():
    found = told(None, "", attrs={})
    assert found["buildDefinition"]["resolvedDependencies"] == []


def test_steps_tell_nothing_of_sessions_and_choices_as_go_writes_them():
    local = source("local://context", {"local.session": "s", "local.unique": "u", "local.sharedkeyhint": "context"})
    owner = pb.ChownOpt(user=pb.UserOpt(byName=pb.NamedUserOpt(name="me")), group=pb.UserOpt(byID=3))
    copy = pb.FileActionCopy(src="/a", dest="/b", owner=owner)
    mkfile = pb.FileAction(mkfile=pb.FileActionMkFile(path="/f", data=b"x"))
    rows = steps(files(image(), [Action(pb.FileAction(copy=copy), local), Action(mkfile)])).rows
    texts = {row["op"]["Op"]["source"]["identifier"]: row for row in rows if "source" in (row["op"]["Op"] or {})}
    assert texts["local://context"]["op"]["Op"]["source"]["attrs"] == {"local.sharedkeyhint": "context"}
    first, second = next(row for row in rows if "file" in (row["op"]["Op"] or {}))["op"]["Op"]["file"]["actions"]
    owners = first["Action"]["copy"]["owner"]
    assert owners["user"]["User"]["byName"]["name"] == "me"
    assert owners["group"] == {"User": {"byId": 3}}
    assert second["Action"] == {"mkfile": {"path": "/f", "data": "eA=="}}
    assert second["output"] == 0
